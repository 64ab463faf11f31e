// Asks each SDK what is in notes.txt, streaming, with a tool that reads it, and prints what it was told at last.
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import { Ollama } from 'ollama';

const question = 'What is in notes.txt?';
const tool = { name: 'read_file', description: 'Reads a file.' };
const schema = { type: 'object', properties: { path: { type: 'string' } }, required: ['path'] };
const run = (args) => readFileSync(args.path, 'utf8');
const say = (client, text, pieces) => console.log(`${client}: ${text.replaceAll('\n', ' ')} in ${pieces} pieces`);

const openai = new OpenAI({ maxRetries: 0 });
{
  const messages = [{ role: 'user', content: question }];
  for (let pieces = 0; ; ) {
    const stream = openai.chat.completions.stream({ model: 'm', messages, tools: [{ type: 'function', function: { ...tool, parameters: schema } }] });
    stream.on('content.delta', () => pieces++);
    const { message } = (await stream.finalChatCompletion()).choices[0];
    messages.push(message);
    for (const c of message.tool_calls ?? []) messages.push({ role: 'tool', tool_call_id: c.id, content: run(JSON.parse(c.function.arguments)) });
    if (!message.tool_calls?.length) { say('openai chat', message.content, pieces); break; }
  }
}
{
  const input = [{ role: 'user', content: question }];
  for (let pieces = 0; ; ) {
    const stream = openai.responses.stream({ model: 'm', input, store: false, tools: [{ type: 'function', ...tool, parameters: schema, strict: false }] });
    stream.on('response.output_text.delta', () => pieces++);
    const response = await stream.finalResponse();
    const calls = response.output.filter((i) => i.type === 'function_call');
    input.push(...response.output, ...calls.map((c) => ({ type: 'function_call_output', call_id: c.call_id, output: run(JSON.parse(c.arguments)) })));
    if (!calls.length) { say('openai responses', response.output_text, pieces); break; }
  }
}
{
  let text = '', pieces = 0;
  for await (const c of await openai.completions.create({ model: 'm', prompt: 'hello', stream: true })) {
    if (c.choices[0]?.text) pieces++;
    text += c.choices[0]?.text ?? '';
  }
  say('openai completions', text, pieces);
}

const anthropic = new Anthropic({ maxRetries: 0 });
{
  const messages = [{ role: 'user', content: question }];
  for (let pieces = 0; ; ) {
    const stream = anthropic.messages.stream({ model: 'm', max_tokens: 100, messages, tools: [{ ...tool, input_schema: schema }] });
    stream.on('text', () => pieces++);
    const message = await stream.finalMessage();
    const calls = message.content.filter((b) => b.type === 'tool_use');
    messages.push({ role: 'assistant', content: message.content });
    messages.push({ role: 'user', content: calls.map((c) => ({ type: 'tool_result', tool_use_id: c.id, content: run(c.input) })) });
    if (!calls.length) { say('anthropic', message.content.filter((b) => b.type === 'text').map((b) => b.text).join(''), pieces); break; }
  }
}

const ollama = new Ollama({ host: process.env.OLLAMA_HOST });
{
  const messages = [{ role: 'user', content: question }];
  for (let pieces = 0; ; ) {
    const message = { role: 'assistant', content: '', tool_calls: [] };
    for await (const p of await ollama.chat({ model: 'm', messages, stream: true, tools: [{ type: 'function', function: { ...tool, parameters: schema } }] })) {
      if (p.message.content) pieces++;
      message.content += p.message.content;
      message.tool_calls.push(...(p.message.tool_calls ?? []));
    }
    messages.push(message);
    for (const c of message.tool_calls) messages.push({ role: 'tool', tool_name: c.function.name, content: run(c.function.arguments) });
    if (!message.tool_calls.length) { say('ollama', message.content, pieces); break; }
  }
}
