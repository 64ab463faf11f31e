// Asks through the official clients and prints what they understood, one line a question.
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import { Ollama } from 'ollama';

const base = process.argv[2];
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const say = (client, server, got) => console.log(JSON.stringify({ client, server, ...got }));

for (const server of process.argv.slice(3)) {
  const openai = new OpenAI({ baseURL: base + '/v1', apiKey: server, maxRetries: 0 });
  const anthropic = new Anthropic({ baseURL: base, apiKey: server, maxRetries: 0 });
  const ollama = new Ollama({ host: base, headers: { 'x-api-key': server } });
  const messages = [{ role: 'user', content: 'What is the weather in Paris and Rome?' }];

  const functions = [{ type: 'function', function: { name: 'get_weather', description: 'The weather', parameters: schema } }];
  const chat = { model: 'm', messages, tools: functions };
  const ofChat = (c) => ({
    text: c.choices[0].message.content, stop: c.choices[0].finish_reason, input: c.usage?.prompt_tokens, output: c.usage?.completion_tokens,
    tools: c.choices[0].message.tool_calls.map((t) => [t.function.name, JSON.parse(t.function.arguments)]),
  });
  say('openai chat', server, ofChat(await openai.chat.completions.create(chat)));
  const stream = openai.chat.completions.stream({ ...chat, stream_options: { include_usage: true } });
  say('openai chat stream', server, ofChat(await stream.finalChatCompletion()));

  const responses = { model: 'm', input: messages, tools: [{ type: 'function', name: 'get_weather', description: 'The weather', parameters: schema, strict: true }] };
  const ofResponse = (r) => ({
    text: r.output_text, stop: r.status, input: r.usage?.input_tokens, output: r.usage?.output_tokens,
    tools: r.output.filter((i) => i.type === 'function_call').map((t) => [t.name, JSON.parse(t.arguments)]),
  });
  say('openai responses', server, ofResponse(await openai.responses.create(responses)));
  say('openai responses stream', server, ofResponse(await openai.responses.stream(responses).finalResponse()));

  const anthropicMessages = { model: 'm', max_tokens: 100, messages, tools: [{ name: 'get_weather', description: 'The weather', input_schema: schema }] };
  const ofMessage = (m) => ({
    text: m.content.filter((b) => b.type === 'text').map((b) => b.text).join(''), stop: m.stop_reason,
    input: m.usage.input_tokens + (m.usage.cache_read_input_tokens ?? 0) + (m.usage.cache_creation_input_tokens ?? 0), output: m.usage.output_tokens,
    tools: m.content.filter((b) => b.type === 'tool_use').map((b) => [b.name, b.input]),
  });
  say('anthropic', server, ofMessage(await anthropic.messages.create(anthropicMessages)));
  say('anthropic stream', server, ofMessage(await anthropic.messages.stream(anthropicMessages).finalMessage()));

  const ofOllama = (parts) => ({
    text: parts.map((p) => p.message.content).join(''), stop: parts.at(-1).done_reason, input: parts.at(-1).prompt_eval_count, output: parts.at(-1).eval_count,
    tools: parts.flatMap((p) => p.message.tool_calls ?? []).map((t) => [t.function.name, t.function.arguments]),
  });
  say('ollama', server, ofOllama([await ollama.chat({ model: 'm', messages, tools: functions })]));
  const parts = [];
  for await (const p of await ollama.chat({ model: 'm', messages, tools: functions, stream: true })) parts.push(p);
  say('ollama stream', server, ofOllama(parts));

  for (const [client, ask] of [
    ['openai chat', () => openai.chat.completions.create({ ...chat, user: 'refuse' })],
    ['openai responses', () => openai.responses.create({ ...responses, user: 'refuse' })],
    ['anthropic', () => anthropic.messages.create({ ...anthropicMessages, metadata: { user_id: 'refuse' } })],
    ['ollama', () => ollama.chat({ model: 'm', messages: [{ role: 'user', content: 'refuse' }] })],
  ]) {
    try {
      await ask();
      say(client, server, { error: 'none' });
    } catch (e) {
      say(client, server, { error: e.message, status: e.status ?? e.status_code });
    }
  }
}

const openai = new OpenAI({ baseURL: base + '/v1', apiKey: 'models', maxRetries: 0 });
const names = [];
for await (const m of openai.models.list()) names.push(m.id);
for await (const m of new Anthropic({ baseURL: base, apiKey: 'models' }).models.list()) names.push(m.id);
for (const m of (await new Ollama({ host: base }).list()).models) names.push(m.name);
const embedded = await openai.embeddings.create({ model: 'm', input: ['a', 'b'] });
const bare = await new Ollama({ host: base }).embed({ model: 'm', input: ['a', 'b'] });
say('lists', 'models', { names, openai: embedded.data.map((d) => d.embedding), ollama: bare.embeddings });
