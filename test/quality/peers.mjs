// Reads texts, one JSON object a line ({"text": ...}), and writes what two packages of npm find in each, one line each:
// {"openredaction": [[label, start, end], ...], "redact-pii": [...]}, places in UTF-16 units. Run where both are installed.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(process.cwd() + '/');
const { OpenRedaction } = await import(pathToFileURL(require.resolve('openredaction')));
const { SyncRedactor } = require('redact-pii');

const open = new OpenRedaction({ redactionMode: 'placeholder' });

// What openredaction calls things, by the first pattern that fits.
const openLabels = [
  [/CREDIT_CARD|DEBIT_CARD|^CARD/, 'card'], [/IBAN/, 'iban'], [/^(US_)?SSN/, 'ssn'], [/^EMAIL/, 'e-mail'],
  [/PHONE|FAX/, 'phone'], [/^NAME|PERSON|_NAME$/, 'person'], [/ADDRESS_(STREET|PO)|STREET|PO_BOX|^ADDRESS|POSTAL|ZIP|POSTCODE/, 'address'],
  [/IPV4|IPV6|^IP/, 'ip'], [/^MAC/, 'mac'], [/DATE_OF_BIRTH|DOB|BIRTH/, 'birth-date'],
  [/BITCOIN|ETHEREUM|CRYPTO|LITECOIN|MONERO|WALLET/, 'crypto'],
  [/KEY|TOKEN|SECRET|PASSWORD|JWT|PRIVATE|BEARER|OAUTH|CREDENTIAL/, 'credential'],
  [/ROUTING|ACCOUNT|SWIFT|SORT_CODE|BANK/, 'bank'],
];

// redact-pii has one regular expression or more for each; each is run alone, so that none hides what another finds.
const piiLabels = {
  creditCardNumber: 'card', emailAddress: 'e-mail', phoneNumber: 'phone', names: 'person', streetAddress: 'address', zipcode: 'address',
  ipAddress: 'ip', usSocialSecurityNumber: 'ssn', credentials: 'credential', password: 'credential',
};
const all = [...Object.keys(piiLabels), 'username', 'digits', 'url'];
const mark = '\u0001';
const pii = Object.entries(piiLabels).map(([name, label]) => {
  const builtInRedactors = Object.fromEntries(all.map((n) => [n, n === name ? { enabled: true } : { enabled: false }]));
  return [label, new SyncRedactor({ globalReplaceWith: mark, builtInRedactors })];
});

// spans finds where a text was replaced: what stands between the marks is in the text, in order.
function spans(text, label, redacted) {
  const out = [];
  let at = 0;
  const pieces = redacted.split(mark);
  pieces.forEach((piece, i) => {
    const next = i === pieces.length - 1 ? text.length - piece.length : text.indexOf(piece, i === 0 ? 0 : at + 1);
    if (i > 0) out.push([label, at, piece === '' && i < pieces.length - 1 ? at + 1 : Math.max(next, at)]);
    at = (piece === '' && i > 0 && i < pieces.length - 1 ? at + 1 : next + piece.length);
  });
  return out.filter(([, from, to]) => to > from);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { text } = JSON.parse(line);
  const found = (await open.detect(text)).detections;
  const one = [];
  for (const d of found) {
    const label = openLabels.find(([re]) => re.test(d.type));
    if (label) one.push([label[1], d.position[0], d.position[1]]);
  }
  const two = pii.flatMap(([label, r]) => spans(text, label, r.redact(text)));
  process.stdout.write(JSON.stringify({ openredaction: one, 'redact-pii': two }) + '\n');
}
