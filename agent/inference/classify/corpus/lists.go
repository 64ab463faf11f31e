package corpus

import "strings"

func split(s string) []string {
	list := strings.Split(s, "|")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

var (
	firsts   = split("Emma|Liam|Olivia|Noah|Sophia|James|Isabella|Robert|Maria|David|Anna|Thomas|Julia|Peter|Laura|Stefan|Katarzyna|Pierre|Jürgen|José|Giulia|Mateo|Priya|Rahul|Fatima|Ahmed|Ingrid|Lars|Hannah|Daniel|Grace|Victor|Elena|Marco|Chloe|Oliver|Yusuf|Aisha|Pavel|Helen")
	lasts    = split("Smith|Johnson|Williams|Brown|Garcia|Miller|Davis|Martinez|Anderson|Taylor|Moore|Jackson|Schmidt|Fischer|Weber|Nowak|Kowalski|Rossi|Ferrari|Dubois|Lefebvre|Svensson|Hansen|Novak|Horvat|Patel|Sharma|Khan|Okafor|Tanaka|Nguyen|Silva|Costa|Jensen|Keller|Novotny|Petrov|Ivanova|Murphy|O'Connor")
	hosts    = split("example.com|mail.example.org|acme-corp.co.uk|posteo.de|uni-koeln.de|startup.io|city.gov.au|fastmail.com|web.example.fr|dept.university.edu|firma.pl|proton.me")
	streets  = split("Maple|Oak|Evergreen|Elm|Washington|Park|Sunset|River|Mill Creek|Lake View|Highland|Cedar|Martin Luther King|Franklin|Old Mill|Church")
	towns    = split("Springfield|Portland|Austin|Oakland|Salem|Fairview|Madison|Georgetown")
	months   = split("January|February|March|April|May|June|July|August|September|October|November|December")
	drugs    = split("metformin|lisinopril|atorvastatin|sertraline|warfarin|levothyroxine|gabapentin|Humira|methotrexate|quetiapine|amoxicillin|oxycodone|insulin|lamotrigine")
	diseases = split("type 2 diabetes|hypertension|HIV|breast cancer|asthma|major depression|schizophrenia|hepatitis C|epilepsy|multiple sclerosis|leukemia|bipolar disorder|tuberculosis|endometriosis")
	icds     = split("E11.9|I10|F32.1|J45.909|C50.911|B20|K21.9|M54.5|N18.3|G40.909|F41.1|Z79.4|O80|S72.001A")
	marks    = split("STRICTLY CONFIDENTIAL|Company Confidential|CONFIDENTIAL|Internal Use Only|PROPRIETARY AND CONFIDENTIAL|Do Not Distribute|TLP:RED|TOP SECRET|Attorney-Client Privileged|Trade Secret|Streng vertraulich|Highly confidential")
	nouns    = split("table|window|river|garden|marble|copper|harbor|lantern|meadow|pepper|signal|thunder|velvet|walnut|yellow|zipper|anchor|basket|candle|dragon")
	// Published examples.
	steuerIDs = split("86095742719|47036892816|65929970489|57549285017|25768131411")
	aadhaars  = split("2345 6789 0124|4991 1866 5246|9999 4105 7058")
	codici    = split("RSSMRA85T10A562S|MRTMTT91D08F205J")
)

// around is what stands before and behind.
var around = split(`Thanks for getting back to me so quickly.|Please handle this today.|I wrote to you last week about the same thing.|Let me know if anything else is needed.|The meeting is on Thursday at 10.|We checked it twice.|See the attachment for the rest.|Ticket {nn} is still open.|This is urgent!|Version {version} has the fix.|Can you summarise the following?|Context for the model:`)

var sensitiveTemplates = split(`My card number is {card}, please charge it.|card: {card} exp 11/29|Could you refund {card}? The {n} items never came.|payment_method={card};amount={float}|{"pan":"{card}","brand":"x"}|We stored {card} in the log by mistake.|Visa {card}
cvv 123|
IBAN: {iban}|Please transfer {n} EUR to {iban} by Friday.|<Account currency="EUR">{iban}</Account>|Überweisung an {iban}, danke|my new bank details: {iban}, valid from {day}|
SSN: {ssn}|His social security number is {ssn-bare}.|{"ssn": "{ssn-bare}", "state": "CA"}|Taxpayer {ssn} filed late|name,ssn
x,{ssn}|
Write to {mail} for details.|From: {person} <{mail}>
To: {mail}|cc {mail}; {mail}|mailto:{mail}|user={mail}&x=1|The account {mail} was locked after {n} attempts.|
export API_KEY={token}|Here is the token: {token}|curl -H "Authorization: Bearer {token}" https://api.example.com/v1/x|{"api_key": "{token}"}|I accidentally committed {token} to the repo|client = Client("{token}")|TOKEN='{token}'
run.sh|
password: {password}|DB_PASSWORD={password}|the admin password is {password}|"password": "{password}",|postgres://app:{urlpass}@db.internal:5432/app|mysql -u root --password={password} shop|pwd = '{password}'|Passwort: {password}|
secret_key = "{hexkey}"|aws_secret_access_key = {b64key}|{"client_secret":"{b64key}"}|ACCESS_TOKEN={hexkey}|
{pem}|the key:
{pem}
keep it safe|
Call me at {phone}.|Phone: {phone}|tel {phone} or mobile {phone}|You can reach her on {phone} after 6.|Fax: {phone}|My number changed, text me at {phone} please|contact: {phone}|
Dr. {last} will see you now.|Dear {first},
thank you for your order.|My name is {person} and I live here.|Name: {person}|Mr. {person} signed the contract.|I spoke with {person} yesterday.|Employee {person} was promoted.|Please forward this to {person} and {person}.|Kind regards,
{person}|Frau {last} ist krank.|
I live at {address}.|Ship to: {address}|Our office moved to {address} last year.|Address: {address}|deliver it to {address} before noon|
Date of birth: {birth}|She was born on {birth} in Lyon.|DOB {birth}|geboren am {birth}|{"birthdate":"{birth}"}|
Login from {ip} failed|client {ip} connected|X-Forwarded-For: {ip}|ssh admin@{ip}|MAC {mac} joined|device {mac} has address {ip}|
NHS number {nhs}|Steuer-ID: {steuer}|National Insurance: {nino}|DNI {dni}|BSN: {bsn}|CPF {cpf}|PESEL {pesel}|numéro de sécurité sociale {nir}|ID card {cnid}|Aadhaar {aadhaar}|codice fiscale {cf}|PAN: {pan} India tax|my SIN is {sin}|
account number {account}|routing {routing} account {account}|Konto: {account}|BIC: {bic}, and the rest as before|SWIFT code {bic}|acct # {account}|
send it to {btc}|wallet {eth}|donate: {btc} or {eth}|
Patient was diagnosed with {disease} in 2019.|Prescribed {drug} 20 mg daily.|She takes {drug} for her {disease}.|Diagnosis: {icd}|ICD-10 {icd}, follow up in {n} days|MRN: {mrn}|Patient record {mrn} shows {disease}|he has been suffering from {disease} for years|The patient is on {drug} and {drug}|
{marking}
Quarterly plan|// {marking}
func main() {}|This document is marked {marking}.|[{marking}] roadmap for {n} customers`)

var benignTemplates = split(`Order {order} has shipped.|Your order number is {order}, total {float} EUR.|Tracking: {order}|Invoice {order} of {day} is paid.|Ticket #{nn}: the {word} doesn't open|SKU {order} is out of stock|ISBN {isbn}, {n} pages|
{uuid}|request_id={uuid} took {n}ms|id: {uuid}, parent: {uuid}|GET /v1/items/{uuid} 200 {n}|
commit {sha}|merge {sha} into main|sha256:{sha}|image: registry/app@sha256:{sha}|etag "{sha}"|{sha}  {file}|integrity="{sri}"|checksum {sha} ok|
{stamp} INFO worker-{n} done in {float}s|[{stamp}] {word}: cache miss {nn}|{stamp} WARN disk {n}% full|ts={epoch} level=debug msg="{word} {word}"|epoch {epoch}|"created_at": {epoch}, "updated_at": {epoch}|
version {version}|upgrade from {version} to {version}|go{version} linux/amd64|requires node >= {version}|v{version} released on {day}|Chrome/{n}.0.{nn}.{n}|firmware {version}, build {nn}|
const {word} = {nn};|for (let i = 0; i < {n}; i++) { {word}[i] = {float}; }|x = np.array([{float}, {float}, {float}])|if err != nil { return fmt.Errorf("{word}: %w", err) }|SELECT {word} FROM {word} WHERE id = {nn};|import {word} from './{file}'|return 0x{sha};|#define MAX_{n} {nn}|func {word}({word} int) int { return {word} * {n} }|@{word}.route("/{word}")|git clone git@github.com:{word}/{word}.git|npm install {word}@{version}|password = os.environ["PASSWORD"]|password: ${DB_PASSWORD}|token = getToken()|api_key: <your-key>|"password": "********"|def check(password: str, token: str) -> bool:|secret: null|The password is required and must be changed every {n} days.|Enter your API key below.|type Token struct { Kind int }|key={word}&value={n}|
latitude {float}, longitude {float}|position {float},{float}|temperature {float} C at {stamp}|size {nn} bytes, {n} files|port {n}, timeout {nn} ms|pi is 3.14159265358979323846|{n} + {n} = {nn}|{nn} {nn} {nn} {nn}|{float}	{float}	{float}|progress {n}/{nn}|
The {word} was on the {word} all day.|What is the best way to learn {word}?|Please call the function twice.|The street was empty.|It was a bright day in April.|A doctor should be asked first.|Diabetes is a disease that many people know.|Aspirin was invented in 1897.|The card game starts at nine.|She has a good address to the audience.|Insurance is a large industry.|We keep confidential data apart.|The private key is generated by the server.|Paris is the capital of France.|Mark the line and press Enter.|Will the rose grow in May?|Apartment prices rose by {n}% in {nn}.|Born in the USA is a song.|The phone rang {n} times.|Do not touch the {word}.|Route {n} is closed.|Room {n}, floor {n}|Chapter {n}: the {word}|
{b64}|data={b64}|127.0.0.1:{n}|0.0.0.0 localhost|subnet mask 255.255.255.0|std::vector<int>::iterator it|{n}:{n}:{n}|aa::bb::cc|http://localhost:{n}/{word}|https://example.com/{word}/{nn}?page={n}|file:///usr/share/{word}/{file}|{file}|color: #{sha}|rgb({n}, {n}, {n})|00:00:00:00:00:00|
{"id":{nn},"ok":true,"name":"{word}"}|{nn},{nn},{float},{word}|- {word}: {n}
- {word}: {n}|E{n} error code {nn}|error {nn} at line {n}|pid {nn} exited with {n}|HTTP/1.1 200 OK
Content-Length: {nn}|{n}x{n} pixels|{day} to {day}|meeting on {day} at {n}|Q{n} {nn}|model GX-{nn}|flight LH{n} gate B{n}|serial number {order}|batch {order}|Taylor Swift played {n} SHOWS|swift build {version} RELEASED|listening on address: Port {n}|the base address is 0x{nn}|case {order} closed`)

// written are texts by hand: what recognisers get wrong.
func written() []Text {
	var out []Text
	for _, s := range []string{
		"Customer says: \"they charged ⟦card|4242424242424242⟧ twice\"", "Amex on file: ⟦card|3782 822463 10005⟧", "MC ⟦card|5555-5555-5555-4444⟧ exp 02/27",
		"cc:⟦card|6011111111111117⟧.", "Diners ⟦card|30569309025904⟧", "⟦card|3566002020360505⟧ (JCB)", "number=⟦card|4000056655665556⟧&cvc=111",
		"Please wire to ⟦iban|DE89 3704 0044 0532 0130 00⟧", "iban ⟦iban|gb82west12345698765432⟧", "⟦iban|FR14 2004 1010 0505 0001 3M02 606⟧", "⟦iban|NO93 8601 1117 947⟧ (Norway)",
		"⟦iban|MT84MALT011000012345MTLCAST001S⟧", "⟦iban|BR1800360305000010009795493C1⟧",
		"ssn ⟦ssn|219-09-9999⟧", "my social is ⟦ssn|457 55 5462⟧", "SSN=⟦ssn|078051120⟧",
		"⟦e-mail|o'brien@example.ie⟧ wrote", "<⟦e-mail|first.last+tag@sub.domain.example.museum⟧>", "(⟦e-mail|x@y.io⟧)", "write ⟦e-mail|用户@example.cn⟧",
		"AWS: ⟦credential|AKIAIOSFODNN7EXAMPLE⟧, aws_secret_access_key=⟦credential|wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY⟧",
		"https://⟦credential|deploy:gldt-x8Kq2Lm9Zt4Wv7Pn3Rb1⟧@git.example.com/x.git", "Authorization: Basic ⟦credential|YWRtaW46c3VwZXJzZWNyZXQ5OQ==⟧",
		"identity ⟦credential|AGE-SECRET-KEY-1QL3Z7HJY54PW3HYWW5AYYFG7ZQGVC7W3J2ELW8ZMRJ2KG5SFN9AQMCAC8P⟧", "redis://:⟦credential|p4ssw0rdX9⟧@cache:6379/0",
		"my seed: ⟦crypto|legal winner thank year wave sausage worth useful legal winner thank yellow⟧", "key ⟦crypto|5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ⟧",
		"pay ⟦crypto|bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4⟧", "⟦crypto|0x52908400098527886E0F7030069857D2E4169EE7⟧",
		"Call ⟦phone|1-800-555-0199⟧ now", "⟦phone|+1 (415) 555-2671⟧ x12", "reach me: ⟦phone|+81 3-1234-5678⟧",
		"Hi ⟦person|Jane Miller⟧,", "Prof. ⟦person|Hans-Peter Müller⟧ presents", "cc: Mrs ⟦person|O'Neill⟧", "Herr Dr. ⟦person|Klaus Weber⟧ kommt",
		"⟦address|1600 Pennsylvania Avenue NW⟧, Washington", "⟦address|221B Baker Street⟧, London", "⟦address|10 Downing Street⟧", "⟦address|Unter den Linden 77⟧, 10117 Berlin",
		"Pt c/o pain. Dx: ⟦medical|J18.9⟧. Rx: ⟦medical|azithromycin⟧ 250 mg.", "her ⟦medical|HIV⟧ test came back", "Medicare member ID: ⟦medical|1EG4TE5MK73⟧",
	} {
		out = append(out, parse(s))
	}
	for _, s := range []string{
		"session 01a20fae-ad10-70cc-a801-738a365409d1", "Co-Authored-By: Claude Opus 5.5 <noreply@anthropic.com>", "Generated with [Claude Code](https://claude.com/claude-code)", "You are a Claude agent, built on Anthropic's Claude Agent SDK.",
		"the model named Opus 5.5", "switches the session to Claude Opus", "the Claude API, your Claude sessions and other Claude models", "pay the cache miss. Right when it is due", "Per-command override",
		"4111 1111 1111 1112 is not a valid number", "the sequence 1234 5678 9012 3456", "ABCD-1234-EFGH-5678 licence for the editor", "GB00WEST12345698765432 has wrong check digits",
		"000-12-3456", "666-12-3456 and 987-40-4320 can't be", "call(555, 0199)", "v1.2.3.4", "192.168.1", "256.300.1.2", "1.2.3.4.5.6", "foo@bar", "@media (max-width: 600px)", "a@b.c", "user@localhost",
		"sk-learn is a library", "sk-SK locale", "ghp_ is the prefix of tokens", "AKIA is followed by 16 characters", "hf_hub_download(repo_id)", "npm_config_registry=x", "eyJ is how a JWT begins",
		"-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n-----END CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx5Q0J0c2Z5a3J5cHRvZ3JhcGhpY2tleQ host", "http://[::1]:8080/", "for x in a::b::c", "12:34:56 elapsed", "2001: a space odyssey",
		"password=", "password?", "Forgot your password? Reset it here.", "passwords are hashed with bcrypt", "token_count: 1234", "max_tokens=4096", "key: value", "auth: none", "secretary: Ms", "The secret of good tea",
		"Dr Pepper is a drink", "Dear all,", "Hello World", "Kind regards", "Name: value", "name = \"app\"", "St. Louis Blues", "Main Street is long", "drive 12 miles", "way 2 go", "Chapter 11 Court 3", "unit tests", "flat 20% off",
		"The patient approach is best.", "E10 fuel", "B20 biodiesel", "F32 float type", "J45 connector", "cancer is a zodiac sign", "confidential: false", "not for the faint", "top 10", "restricted area ahead",
		"all the words here are able to make about any abstract story", "deadbeef cafebabe 0123456789abcdef", "H4 headline", "eJ is nothing", "MIT licence", "MIIT is a ministry", "%PDF-1.7", "100% of 25%", "a & b; c", "C:\\new\\table\\x", "\\u00e9t\\u00e9",
		"Привет, как дела?", "今天天气很好", "naïve café — “quoted” text…", "👩‍👩‍👧 family", "１２３", "π ≈ 3.14159",
	} {
		out = append(out, Text{Text: s})
	}
	return out
}
