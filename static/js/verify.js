// [data-verify]: the form of /verify/ checks its files here, in the browser; nothing is sent. The answers are verify.py's.
(() => {
  const LOG_KEY = 1, WITNESS_KEY = 4;
  const EARLIEST = 1577836800, AHEAD = 900; // a witness's time: since 2020, and at most 15 minutes ahead of this clock
  const RECEIPT = "consent-receipt+jwt", CERTIFICATE = "ending-certificate+jwt"; // `typ` of what the portal signs
  const BESIDE = ["evidence", "digest", "jws", "keys", "verify"]; // members of a certificate that its signature does not cover
  const STEPS = ["sent", "received", "stopped", "erased"];
  const DEEPEST = 32;
  const SPACE = "\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
  const NAME = new RegExp(`^[^${SPACE}+]+$`, "u");
  const DIGEST = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]";
  const JWS = /^[ \t\r\n]*([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+[ \t\r\n]*$/;
  // RFC 8785 leaves an entry one spelling, so its bytes can be read with a pattern and with nothing else.
  const ENTRY = new RegExp(
    `^\\{"_sd":\\[((?:"${DIGEST}"(?:,"${DIGEST}")*)?)\\],"_sd_alg":"sha-256","day":"([0-9]{4}-[0-9]{2}-[0-9]{2})",` +
      '"id":"([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})","typ":"([a-z]+(?:\\.[a-z_]+)+)","v":1\\}$',
  );

  class Invalid extends Error {}
  const refuse = (why) => { throw new Invalid(why); };

  // --- reading strictly: one value has one spelling

  const encoded = (text) => new TextEncoder().encode(text);
  const decoded = (bytes, what) => {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return refuse(`${what} is not UTF-8`);
    }
  };
  const number = (text) => {
    if (!/^(?:0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) >= 1n << 63n) refuse(`not a number: ${text.slice(0, 30)}`);
    return BigInt(text);
  };
  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const b64 = (bytes) => {
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
  };
  const b64url = (bytes) => b64(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const unb64 = (text, what = "base64") => {
    if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) refuse(`${what} is not base64`);
    const data = bytesOf(text);
    return b64(data) === text ? data : refuse(`${what} is not canonical base64`);
  };
  const unb64url = (text, what) => {
    if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) refuse(`${what} is not base64url`);
    const data = bytesOf(text.replace(/-/g, "+").replace(/_/g, "/"));
    return b64url(data) === text ? data : refuse(`${what} is not canonical base64url`);
  };
  const hashOf = (text) => {
    const data = unb64(text, "a hash");
    return data.length === 32 ? data : refuse("a hash does not have 32 bytes");
  };
  const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const same = (left, right) => left.length === right.length && left.every((byte, i) => byte === right[i]);
  const joined = (...parts) => {
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let place = 0;
    for (const part of parts) {
      whole.set(part, place);
      place += part.length;
    }
    return whole;
  };
  const inner = (value, ...names) => {
    for (const name of names) {
      const has = value !== null && typeof value === "object" && !Array.isArray(value) && Object.hasOwn(value, name);
      value = has ? value[name] : null;
    }
    return value;
  };
  const listed = (value, name) => (Array.isArray(inner(value, name)) ? inner(value, name) : []);
  const isWhole = (value) => typeof value === "number";
  const isText = (value) => typeof value === "string";
  const isMembers = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const member = (value, name, kind, what) => (kind(inner(value, name)) ? inner(value, name) : refuse(`${what} has no ${name}`));

  // JSON with no member twice, no fraction, no unsafe integer, no lone surrogate, and not too deep.
  const strictJson = (text, what) => {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      refuse(`${what} is not JSON`);
    }
    const open = []; // one set of names per object, null per list
    let isName = false;
    for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|-?[0-9][0-9.eE+-]*/g)) {
      if (token === "{") open.push(new Set());
      else if (token === "[") open.push(null);
      else if (token === "}" || token === "]") open.pop();
      else if (token[0] === '"' && isName && open.at(-1)) {
        const name = JSON.parse(token);
        if (open.at(-1).has(name)) refuse(`${what} names a member twice`);
        open.at(-1).add(name);
      } else if (/^[-0-9]/.test(token) && !(/^(?:0|-?[1-9][0-9]*)$/.test(token) && token.length < 18 && Number.isSafeInteger(Number(token)))) {
        refuse(`${what} holds the number ${token.slice(0, 30)}`);
      }
      isName = token === "{" || token === ",";
    }
    checkValue(value, what, DEEPEST);
    return value;
  };
  const checkValue = (value, what, left) => {
    if (!left) refuse(`${what} is nested too deep`);
    if (isText(value) && /\p{Surrogate}/u.test(value)) refuse(`${what} is not JSON`);
    if (value === null || typeof value !== "object") return;
    for (const [name, one] of Object.entries(value)) {
      if (/\p{Surrogate}/u.test(name)) refuse(`${what} is not JSON`);
      checkValue(one, what, left - 1);
    }
  };

  // RFC 8785 of what strictJson has read: without fractions only the order of names is left, by UTF-16 code units.
  const canonical = (value) => {
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    if (!isMembers(value)) return JSON.stringify(value);
    return `{${Object.keys(value).sort().map((name) => `${canonical(name)}:${canonical(value[name])}`).join(",")}}`;
  };
  const without = (value, ...names) => Object.fromEntries(Object.entries(value).filter(([name]) => !names.includes(name)));

  // --- the tree (RFC 6962, RFC 9162)

  const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256Of = async (text) => `sha256:${hex(await sha256(encoded(text)))}`;
  const leafHash = (entry) => sha256(joined([0], entry));
  const nodeHash = (left, right) => sha256(joined([1], left, right));

  const checkInclusion = async (leaf, index, size, proof, root) => {
    if (index >= size) refuse("the index is not in the tree");
    let place = index, last = size - 1n, made = leaf;
    const up = () => { place >>= 1n; last >>= 1n; };
    for (const other of proof) {
      if (last === 0n) refuse("not in the tree: the proof is too long");
      if (place % 2n || place === last) {
        made = await nodeHash(other, made);
        while (place % 2n === 0n && place) up();
      } else {
        made = await nodeHash(made, other);
      }
      up();
    }
    if (last || !same(made, root)) refuse("not in the tree");
  };

  // --- policy, checkpoint, witnesses

  const signed = async (key, signature, message) => {
    if (signature.length !== 64) return false;
    try {
      const loaded = await crypto.subtle.importKey("raw", key.material.slice(1), { name: "Ed25519" }, false, ["verify"]);
      return await crypto.subtle.verify({ name: "Ed25519" }, loaded, signature, message);
    } catch {
      return false;
    }
  };
  const parseKey = async (text, kind) => {
    const first = text.indexOf("+"), second = first < 0 ? -1 : text.indexOf("+", first + 1);
    const name = first < 0 ? text : text.slice(0, first);
    const ident = first < 0 ? "" : second < 0 ? text.slice(first + 1) : text.slice(first + 1, second);
    const material = unb64(second < 0 ? "" : text.slice(second + 1), "a key");
    const short = name.slice(0, 60);
    if (!NAME.test(name) || material.length !== 33 || material[0] !== kind) {
      refuse(`the policy's key of ${short} is not an Ed25519 key for this use`);
    }
    const id = hex((await sha256(joined(encoded(`${name}\n`), material))).slice(0, 4));
    if (id !== ident) refuse(`the policy's key of ${short} has another id`);
    return { name, id, material };
  };
  const parsePolicy = async (text) => {
    const policy = { logs: [], witnesses: new Map(), groups: new Map(), quorum: null };
    for (const line of text.split("\n")) {
      const words = line.split(/[ \t\r]+/).filter(Boolean);
      if (!words.length || words[0].startsWith("#")) continue;
      const named = (name) => policy.witnesses.has(name) || policy.groups.has(name);
      const known = (name) => name === "none" || named(name);
      const [kind, name] = words, count = words.length;
      if (kind === "log" && (count === 2 || count === 3)) {
        policy.logs.push(await parseKey(name, LOG_KEY));
      } else if (kind === "witness" && (count === 3 || count === 4) && !known(name)) {
        const key = await parseKey(words[2], WITNESS_KEY);
        if ([...policy.witnesses.values()].some((other) => same(other.material, key.material))) {
          refuse("the policy counts one witness key twice");
        }
        policy.witnesses.set(name, key);
      } else if (kind === "group" && count > 3 && !known(name)) {
        const members = words.slice(3), short = name.slice(0, 60);
        if (!members.every(named) || new Set(members).size !== members.length) {
          refuse(`the policy's group ${short} names an unknown member, or one twice`);
        }
        const most = BigInt(members.length);
        const needed = words[2] === "any" ? 1n : words[2] === "all" ? most : number(words[2]);
        if (needed < 1n || needed > most) refuse(`the policy's group ${short} can never be satisfied`);
        policy.groups.set(name, [needed, members]);
      } else if (kind === "quorum" && count === 2 && policy.quorum === null && known(name)) {
        policy.quorum = name;
      } else {
        refuse(`the policy has a line that cannot be read: ${line.slice(0, 80)}`);
      }
    }
    if (!policy.logs.length || policy.quorum === null) refuse("the policy needs a log and a quorum");
    return policy;
  };
  const satisfied = (policy, seen) => {
    const holds = new Map([["none", true]]);
    for (const name of policy.witnesses.keys()) holds.set(name, seen.has(name));
    for (const [name, [needed, members]] of policy.groups) {
      holds.set(name, members.filter((one) => holds.get(one)).length >= needed);
    }
    return holds.get(policy.quorum);
  };
  const parseNote = (text) => {
    if (encoded(text).length > 1_000_000 || /[\x00-\x09\x0b-\x1f]/.test(text)) {
      refuse("the checkpoint is too large, or holds a control character");
    }
    const place = text.lastIndexOf("\n\n");
    if (place < 0 || place + 2 === text.length || !text.endsWith("\n")) refuse("the checkpoint is not a signed note");
    const found = text.slice(place + 2, -1).split("\n").map((line) => {
      const letters = [...line], parts = letters.slice(2).join("").split(" ");
      const data = unb64(parts.at(-1), "a signature");
      if (letters.slice(0, 2).join("") !== "\u2014 " || parts.length !== 2 || !NAME.test(parts[0]) || data.length < 5) {
        refuse("a signature line cannot be read");
      }
      return { name: parts[0], id: hex(data.slice(0, 4)), value: data.slice(4) };
    });
    if (found.length > 64) refuse("the checkpoint has too many signatures");
    return [`${text.slice(0, place)}\n`, found];
  };
  const openCheckpoint = async (text, policy, now) => {
    const [body, signatures] = parseNote(text);
    const lines = body.split("\n");
    if (lines.length !== 4 || lines[3] || !NAME.test(lines[0])) refuse("the checkpoint is not three lines: origin, size, root");
    const [origin, size, root] = [lines[0], number(lines[1]), hashOf(lines[2])];
    if (policy.logs.every((key) => key.name !== origin)) refuse(`the log ${origin.slice(0, 80)} is not the policy's`);
    const by = (key) => signatures.filter((one) => one.name === key.name && one.id === key.id).map((one) => one.value);
    let isSigned = false;
    for (const key of policy.logs) {
      for (const signature of by(key)) {
        if (!(await signed(key, signature, encoded(body)))) refuse("the log's signature is false");
        isSigned ||= key.name === origin;
      }
    }
    if (!isSigned) refuse("the log has not signed this checkpoint");
    const seen = new Map();
    for (const [name, key] of policy.witnesses) {
      for (const signature of by(key)) {
        const moment = signature.length === 72 ? new DataView(signature.buffer, signature.byteOffset).getBigUint64(0) : 0n;
        const message = encoded(`cosignature/v1\ntime ${moment}\n${body}`);
        if (!(await signed(key, signature.slice(8), message))) refuse(`the signature of the witness ${name} is false`);
        if (moment < BigInt(EARLIEST) || moment > BigInt(now + AHEAD)) {
          refuse(`the witness ${name} gives a time that cannot be (or this clock is wrong)`);
        }
        seen.set(name, moment);
      }
    }
    if (!satisfied(policy, seen)) refuse("too few witnesses of the policy have seen this checkpoint");
    return { origin, size, root, by: `witnessed by ${[...seen.keys()].join(", ") || "nobody"}` };
  };

  // --- entries and what is shown of them

  const possible = (day) => {
    const [year, month, date] = day.split("-").map(Number);
    const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
    return year > 0 && date > 0 && date <= ([31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0);
  };
  const parseEntry = (text) => {
    const found = ENTRY.exec(text);
    if (!found || text.length > 65535) refuse("the entry is not a canonical entry of this log");
    const [, list, day, id, typ] = found;
    const digests = list ? list.slice(1, -1).split('","') : [];
    if (digests.some((digest, i) => i && digests[i - 1] >= digest)) refuse("the entry's digests are not in order, or one is there twice");
    if (!possible(day)) refuse("the entry has no possible day");
    return { id, typ, day, digests };
  };
  const disclosed = async (entry, disclosures) => {
    const fields = new Map(), used = new Set();
    for (const disclosure of disclosures) {
      const digest = b64url(await sha256(encoded(disclosure)));
      if (!entry.digests.includes(digest)) refuse("something is shown that the entry does not hold");
      if (used.has(digest)) refuse("something is shown twice");
      used.add(digest);
      const [name, value] = parseDisclosure(disclosure);
      if (fields.has(name)) refuse(`the field ${name.slice(0, 30)} is shown twice`);
      fields.set(name, value);
    }
    return fields;
  };
  const parseDisclosure = (text) => {
    const parts = strictJson(decoded(unb64url(text, "a disclosure"), "a disclosure"), "a disclosure");
    if (!Array.isArray(parts) || parts.length !== 3 || !isText(parts[0]) || !isText(parts[1])) refuse("a disclosure is not salt, name, value");
    if (unb64url(parts[0], "a salt").length < 16) refuse("a salt is too short");
    return [parts[1], parts[2]];
  };
  const checkProof = async (text, policy, now) => {
    const place = text.indexOf("\n\n");
    const lines = (place < 0 ? text : text.slice(0, place)).split("\n");
    if (place < 0 || lines.shift() !== "c2sp.org/tlog-proof@v1") refuse("not a tlog-proof");
    if (lines.length < 2 || !lines[0].startsWith("extra ") || !lines[1].startsWith("index ")) refuse("the proof carries no entry and index");
    const extra = unb64(lines[0].slice(6), "extra"), index = number(lines[1].slice(6));
    if (lines.length > 65) refuse("the proof has more than 63 hashes");
    const hashes = lines.slice(2).map(hashOf);
    const checkpoint = await openCheckpoint(text.slice(place + 2), policy, now);
    const shown = strictJson(decoded(extra, "extra"), "extra");
    const raw = member(shown, "entry", isText, "extra"), disclosures = member(shown, "disclosures", Array.isArray, "extra");
    if (Object.keys(shown).length !== 2 || !disclosures.every(isText)) refuse("extra is not an entry with its disclosures");
    const leaf = await leafHash(encoded(raw));
    await checkInclusion(leaf, index, checkpoint.size, hashes, checkpoint.root);
    const entry = parseEntry(raw);
    return { checkpoint, index, entry, leaf, fields: await disclosed(entry, disclosures) };
  };
  const compact = (value) => (isText(value) ? value : JSON.stringify(value));
  const sayProof = ({ checkpoint, index, entry, fields }) => {
    const rows = [...fields].map(([name, value]) => [`  ${name}`, "", compact(value)]);
    const hidden = entry.digests.length - fields.size;
    const first = `VALID ${checkpoint.origin} size ${checkpoint.size} index ${index} ${entry.typ} ${entry.day} ${checkpoint.by}`;
    return [[first], ...rows, ...(hidden ? [[`  ${hidden} more not shown`]] : [])];
  };

  // --- what the portal signs

  const jwsPart = (part, what) => strictJson(decoded(unb64url(part, what), what), what);
  const openJws = async (compact, typ, keys, what) => {
    const parts = compact.split(".");
    if (parts.length !== 3) refuse(`${what} is not a compact JWS`);
    const [header, claims] = parts.slice(0, 2).map((part) => jwsPart(part, what));
    if (inner(header, "alg") !== "ES256" || inner(header, "typ") !== typ) refuse(`${what} is not a ${typ} signed with ES256`);
    if (Object.hasOwn(header, "crit") || Object.hasOwn(header, "b64")) refuse(`${what} asks for what this verifier does not know`);
    const signature = unb64url(parts[2], "the signature");
    if (signature.length !== 64) refuse(`the signature of ${what} has another length`);
    if (keys !== null) await checkEs256(keys, inner(header, "kid"), encoded(parts.slice(0, 2).join(".")), signature, what);
    return claims;
  };
  const checkEs256 = async (keys, kid, message, signature, what) => {
    for (const key of member(keys, "keys", Array.isArray, "the key file")) {
      if (!isText(kid) || inner(key, "kid") !== kid || key.kty !== "EC" || key.crv !== "P-256") continue;
      const [x, y] = ["x", "y"].map((name) => unb64url(member(key, name, isText, "a key"), "a key"));
      if (x.length !== 32 || y.length !== 32) refuse(`the key of ${what} has another length`);
      const curve = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
      try {
        const loaded = await crypto.subtle.importKey("raw", joined([4], x, y), curve, false, ["verify"]);
        if (await crypto.subtle.verify(curve, loaded, signature, message)) return;
      } catch {
        // a point that is not on the curve
      }
      refuse(`the signature of ${what} is false`);
    }
    refuse(`the key file does not hold the key of ${what}`);
  };

  // --- certificate of ending

  const checkCertificate = async (paper, policy, now, keys) => {
    const what = "the certificate", log = member(paper, "log", isMembers, what);
    const proved = [], bare = [], known = new Set();
    for (const row of member(log, "entries", Array.isArray, "the certificate's log")) {
      const [id, typ, leaf] = ["id", "typ", "leaf"].map((name) => member(row, name, isText, "an entry of the certificate"));
      const short = id.slice(0, 40);
      if (known.has(id)) refuse(`the certificate names the entry ${short} twice`);
      known.add(id);
      if (inner(row, "proof") === null) {
        bare.push([typ, id]);
        continue;
      }
      const found = await checkProof(member(row, "proof", isText, `entry ${short}`), policy, now);
      if (found.entry.id !== id || found.entry.typ !== typ || !same(found.leaf, hashOf(leaf))) {
        refuse(`the proof of ${typ.slice(0, 40)} ${short} is about another entry`);
      }
      if (found.checkpoint.origin !== member(log, "origin", isText, "the certificate's log")) {
        refuse("a proof is from another log than the certificate says");
      }
      proved.push(found);
    }
    if (!proved.length) refuse("the certificate holds no proof");
    const [ended, rest] = compare(paper, proved);
    rest.push(...(await checkDocuments(paper)));
    await checkStatement(paper, keys, now);
    return sayCertificate(paper, keys !== null, proved, bare, ended, rest);
  };
  const checkStatement = async (paper, keys, now) => {
    const entries = paper.log.entries.map((row) => without(row, "proof"));
    const stated = { ...without(paper, ...BESIDE), log: { ...without(paper.log, "size"), entries } };
    if (member(paper, "digest", isText, "the certificate") !== (await sha256Of(canonical(stated)))) {
      refuse("the certificate was changed: its digest is of other words");
    }
    const what = "the certificate's signature";
    const claims = await openJws(member(paper, "jws", isText, "the certificate"), CERTIFICATE, keys, what);
    if (canonical(inner(claims, "certificate")) !== canonical(stated)) {
      refuse("the certificate was changed: the portal signed other words");
    }
    if (member(claims, "sub", isText, what) !== member(stated, "subject", isText, "the certificate")) {
      refuse("the certificate's signature is about another person");
    }
    const given = member(claims, "iat", isWhole, what);
    if (given < 0 || given > now + AHEAD) refuse("the certificate's signature gives a time that cannot be");
  };
  const checkDocuments = async (paper) => {
    const known = new Set(), open = new Map();
    for (const party of paper.parties) {
      for (const one of statements(party)) {
        const names = [party.id, one.id, one.digest];
        known.add(canonical(names));
        open.set(canonical(names), ["document", party.id, one.id]);
      }
    }
    const what = "evidence of the certificate";
    for (const row of inner(paper, "evidence") === null ? [] : member(paper, "evidence", Array.isArray, "the certificate")) {
      const names = ["organization", "id", "digest"].map((name) => member(row, name, isText, what));
      const short = names[1].slice(0, 40);
      if (!known.has(canonical(names))) refuse(`the certificate brings evidence ${short} that no party of it stated`);
      if ([null, ""].includes(inner(row, "document"))) continue;
      if ((await sha256Of(member(row, "document", isText, what))) !== names[2]) {
        refuse(`the document of the evidence ${short} has another digest than the certificate`);
      }
      open.delete(canonical(names));
    }
    return [...open.values()];
  };
  const second = (moment) => (isText(moment) ? moment.slice(0, 19) : null);
  const statements = (party) => {
    const found = member(party, "statements", Array.isArray, "a party");
    for (const one of found) for (const name of ["id", "status", "digest"]) member(one, name, isText, "a statement of a party");
    return found;
  };
  const compare = (paper, proved) => {
    const parties = new Map();
    const all = member(paper, "parties", Array.isArray, "the certificate");
    for (const party of all) {
      member(party, "id", isText, "a party");
      const jti = member(party, "jti", isText, "a party");
      if (!parties.has(jti)) parties.set(jti, party);
    }
    if (parties.size !== all.length) refuse("the certificate names one message twice");
    const shown = new Set(); // what the proofs show: "ended", or jti and step, or jti and evidence
    const subscription = member(paper, "subscription", isText, "the certificate");
    for (const { entry: { typ }, fields } of proved) {
      const said = (name) => fields.get(name) ?? null;
      const agree = (name, claimed, found) => {
        if (found !== null && !(isText(found) && claimed === found)) refuse(`the certificate and the entry ${typ} differ in ${name}`);
      };
      const moment = second(said("at"));
      agree("subscription", subscription, said("sbs"));
      if (typ === "subscription.ended") {
        agree("when it ended", second(inner(paper, "ended_at")), moment);
        agree("reason", inner(paper, "reason"), said("rsn"));
        agree("company", inner(paper, "operator", "id"), said("opr"));
        if (moment && ["sbs", "rsn", "opr"].every((name) => isText(said(name)))) shown.add("ended");
      }
      if (typ === "erasure.requested" && Array.isArray(said("ids")) && said("ids").includes(subscription)) {
        agree("when erasure was asked for", second(inner(paper, "erasure", "requested_at")), moment);
        if (moment) shown.add("asked");
      }
      if (typ.startsWith("erasure.") && Array.isArray(said("ids")) && said("ids").includes(subscription)) shown.add(typ);
      const jti = said("jti"), [subject, step] = typ.split(".");
      if (!["delivery", "erasure"].includes(subject) || jti === null) continue;
      const party = parties.get(jti);
      if (!isText(jti) || !party) refuse(`the entry ${typ} is about a message that the certificate does not name`);
      agree("company", inner(party, "id"), said("opr"));
      if (subject === "delivery" && STEPS.includes(step) && moment) {
        agree(`when it was ${step}`, second(inner(party, `${step}_at`)), moment);
        // A step that was jumped over has the time of the later one, and no entry of its own.
        for (const early of STEPS.slice(0, STEPS.indexOf(step) + 1)) {
          if (second(inner(party, `${early}_at`)) === moment) shown.add(`${jti}\0${early}`);
        }
      }
      if (said("evd") !== null) {
        const named = statements(party).filter((one) => one.digest === said("evd"));
        if (!named.length) refuse(`the entry ${typ} has evidence that the certificate does not name`);
        if (subject === "delivery" && !named.some((one) => one.status === step)) {
          refuse(`the certificate and the entry ${typ} differ in what the evidence says`);
        }
        shown.add(`${jti}\0evd\0${said("evd")}`);
      }
    }
    const rest = [];
    const state = inner(paper, "erasure", "state"), asked = inner(paper, "erasure", "requested_at");
    if (shown.has("erasure.confirmed") && state !== "confirmed") {
      refuse("the certificate and the entry erasure.confirmed differ in the erasure");
    }
    if (state !== "not_requested" && !(isText(state) && shown.has(`erasure.${state}`))) rest.push(["erasure", state]);
    if (asked !== null && !shown.has("asked")) rest.push(["erasure asked for", asked]);
    for (const [jti, party] of parties) {
      for (const step of STEPS) {
        const claimed = inner(party, `${step}_at`);
        if (claimed !== null && !shown.has(`${jti}\0${step}`)) rest.push([step, party.id, claimed]);
      }
      for (const one of statements(party)) {
        if (!shown.has(`${jti}\0evd\0${one.digest}`)) rest.push(["evidence", party.id, one.digest]);
      }
    }
    return [shown.has("ended"), rest];
  };
  const sayCertificate = (paper, isSigned, proved, bare, ended, rest) => {
    const newest = proved.map((one) => one.checkpoint).reduce((best, one) => (one.size > best.size ? one : best));
    const word = isSigned ? "  SIGNED" : "  NOT PROVED";
    const rows = [
      ...factsOf(paper).map((fact) => [word, ...fact]),
      [ended ? "  PROVED" : "  NOT PROVED", "ended", inner(paper, "ended_at"), inner(paper, "reason")],
      ...(isSigned ? [] : [["  NOT PROVED", "the portal's signature", "give its keys with --keys"]]),
      ...bare.map((row) => ["  WITHOUT PROOF", ...row]),
      ...rest.map((row) => ["  NOT PROVED", ...row]),
      ...proved.map(({ index, entry, fields }) => {
        const at = fields.get("at");
        return [`  ${index}`, entry.typ, isText(at) && at ? at : entry.day, fields.has("opr") ? fields.get("opr") : "", entry.id];
      }),
      ...claimsOf(paper).map((claim) => [word, ...claim]),
    ];
    const open = rows.filter(isOpen).length;
    const ends = open ? `but only in part: ${open} not proved` : "signed by the portal";
    return [
      [`VALID ${newest.origin} size ${newest.size} certificate-of-ending ${proved.length} entries proved ${newest.by} ${ends}`],
      ...rows,
    ];
  };
  const isOpen = ([mark]) => mark === "  NOT PROVED" || mark === "  WITHOUT PROOF";
  const factsOf = (paper) => [
    ...[["service", "service"], ["company", "operator"]].map(([claim, name]) =>
      [claim, ...["name_ko", "name_en", "id"].map((part) => inner(paper, name, part))]),
    ["person", inner(paper, "subject")],
    ["joined", inner(paper, "joined_at")],
  ];
  const claimsOf = (paper) => {
    const found = [], has = (value) => value !== null && value !== "";
    for (const [claim, name] of [["erasure confirmed", "confirmed_at"], ["erasure refused", "refusal"]]) {
      if (has(inner(paper, "erasure", name))) found.push([claim, inner(paper, "erasure", name)]);
    }
    for (const party of paper.parties) {
      found.push(["party", ...["name_ko", "name_en", "id", "role", "goal", "state"].map((name) => inner(party, name))]);
      for (const [claim, name] of [["due", "due_at"], ["refused", "refusal"]]) {
        if (has(inner(party, name))) found.push([claim, party.id, inner(party, name)]);
      }
      for (const one of statements(party)) {
        found.push(["statement", party.id, ...["status", "means", "stated_at", "received_at"].map((name) => inner(one, name))]);
      }
    }
    found.push(["open", inner(paper, "open")]);
    return found;
  };

  // --- what verify.py's judge answers: rows of text, the first of them the verdict

  const LARGEST = 2_000_000; // characters, as in verify.py
  const letters = (text) => {
    let count = 0;
    for (const _letter of text) count += 1;
    return count;
  };
  const judge = async (text, policyText, now, keys) => {
    if (text.length > LARGEST && letters(text) > LARGEST) refuse(`the file is larger than ${LARGEST} characters`);
    const policy = await parsePolicy(policyText);
    const found = JWS.exec(text);
    if (found) refuse(otherPaper(inner(jwsPart(found[1], "the file"), "typ")));
    if (!/^[ \t\r\n]*\{/.test(text)) return sayProof(await checkProof(text, policy, now));
    const paper = strictJson(text, "the certificate");
    if (inner(paper, "type") !== "certificate-of-ending") refuse("neither a tlog-proof nor a certificate-of-ending");
    return checkCertificate(paper, policy, now, keys);
  };
  const otherPaper = (typ) => {
    if (typ === RECEIPT) return "this is a receipt, not a proof: check it with --receipt FILE --keys JWKS --log DIR POLICY";
    if (typ === CERTIFICATE) return "this is the signature of a certificate alone: give the certificate's JSON file";
    return "neither a tlog-proof nor a certificate-of-ending";
  };
  const printable = (part) =>
    compact(part).replace(/[\p{C}\p{Z}]/gu, (letter) =>
      letter === " " ? letter : `\\u${letter.codePointAt(0).toString(16).padStart(4, "0")}`);
  const answer = async (proof, policy, now, keys) => {
    try {
      return (await judge(proof, policy, now, keys)).map((row) => row.map(printable));
    } catch (problem) {
      // Whatever else went wrong: what could not be checked is not valid.
      return [[`INVALID ${problem instanceof Invalid ? printable(problem.message) : "it could not be checked"}`]];
    }
  };

  // --- the page

  const form = document.querySelector("[data-verify]");
  if (!form) return;
  const [shownHere, server] = ["[data-verify-here]", "[data-verify-server]"].map((name) => form.querySelector(name));
  const result = document.getElementById("verify-result");
  const words = JSON.parse(document.getElementById("verify-words").textContent);

  const stateOf = (rows) => {
    if (!rows[0][0].startsWith("VALID ")) return rows[0][0].startsWith("INVALID this is ") ? "other" : "bad";
    return rows.some(isOpen) ? "part" : "good";
  };
  const moment = (text) => {
    const found = /^((?:19|20|21)[0-9]{2})-([0-9]{2})-([0-9]{2})(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?Z)?$/.exec(text);
    if (!found) return text;
    const [year, month, date, hour, minute, second] = found.slice(1).map((digits) => Number(digits ?? 0));
    const when = new Date(Date.UTC(year, month - 1, date, hour, minute, second));
    if (!when.toISOString().startsWith(text.slice(0, 19))) return text; // no such moment
    const local = new Date(when.getTime() + (found[4] ? 9 * 3600 * 1000 : 0)); // Seoul
    const parts = { y: local.getUTCFullYear(), m: local.getUTCMonth() + 1, d: local.getUTCDate(), b: words.months[local.getUTCMonth()] };
    const day = words.date.replace(/\{(\w)\}/g, (_all, name) => parts[name]);
    return found[4] ? `${day} ${local.toISOString().slice(11, 16)}` : day;
  };
  // What verify.py says in English codes, in the reader's words; verification.py does the same with the same words.
  const inWords = (rows) => {
    const has = (table, name) => Object.hasOwn(table, name);
    const named = new Map();
    for (const [mark, claim, ko, en, id] of rows) {
      if (mark === "  SIGNED" && ["company", "party"].includes(claim)) named.set(id, words.name === "ko" ? ko : en);
    }
    const read = (kind, part) => {
      if (part === "null" || part === "") return "–";
      if (kind === "moment") return moment(part);
      if (kind === "party") return named.get(part) ?? part;
      if (has(words.moments, kind)) return words.moments[kind].replace("{}", () => moment(part));
      return has(words.codes, kind) && has(words.codes[kind], part) ? words.codes[kind][part] : part;
    };
    return rows.slice(1).map(([first, ...rest]) => {
      const head = first.trim(), proved = words.marks.PROVED;
      const join = (parts) => parts.filter(Boolean).join(" · ");
      if (head === "WITHOUT PROOF") return { name: read("entry", rest[0]), value: rest[1], mark: words.marks[head] };
      if (has(words.marks, head)) {
        const [label, kinds] = has(words.claims, rest[0]) ? words.claims[rest[0]] : [rest[0], []];
        return { name: label, value: join(rest.slice(1).map((part, i) => read(kinds[i], part))), mark: words.marks[head] };
      }
      if (/^[0-9]+$/.test(head) && rest.length === 4) {
        const [typ, at, who, id] = rest;
        const parts = [moment(at), who && read("party", who), words.entry.replace("{}", head), id];
        return { name: read("entry", typ), value: join(parts), mark: proved };
      }
      const hidden = /^([0-9]+) more not shown$/.exec(head);
      if (hidden && !rest.length) return { name: words.hidden, value: hidden[1], mark: ["", ""] };
      return { name: words.fields[head] ?? head, value: rest.at(-1) ?? "", mark: proved };
    });
  };
  const show = (rows) => {
    const filled = document.getElementById(`verify-${stateOf(rows)}`).content.cloneNode(true);
    filled.querySelector("[data-line]").textContent = rows[0][0];
    const why = filled.querySelector("[data-why]");
    if (why) why.textContent = words.reasons.find(([keys]) => keys.some((key) => rows[0][0].includes(key)))[1];
    const table = filled.querySelector("tbody");
    for (const { name, value, mark: [mark, tone] } of inWords(rows)) {
      const row = table.insertRow();
      const head = document.createElement("th"), badge = document.createElement("span");
      head.scope = "row";
      head.textContent = name;
      row.append(head);
      row.insertCell().textContent = value;
      badge.className = `badge badge-${tone}`;
      badge.textContent = mark;
      row.insertCell().append(...(mark ? [badge] : []));
    }
    if (rows.length < 2) filled.querySelector(".table-frame")?.remove();
    result.replaceChildren(filled);
    document.getElementById("announcer").textContent = result.querySelector("h2").textContent;
  };
  const text = async (file, what) => {
    try {
      return decoded(new Uint8Array(await file.arrayBuffer()), what);
    } catch {
      return null;
    }
  };
  let asked = 0; // an older check that ends late says nothing any more
  const check = async () => {
    const file = form.elements.proof.files[0], own = form.elements.policy.files[0], mine = ++asked;
    result.replaceChildren(); // what stands there is about another file
    if (!file) return;
    const proof = await text(file, "the file");
    const policy = own ? await text(own, "the policy") : words.policy;
    const rows = proof === null || policy === null
      ? [[`INVALID ${proof === null ? file.name : own.name} is not text`]]
      : await answer(proof, policy, Math.floor(Date.now() / 1000), words.keys);
    if (mine !== asked) return;
    // The code on a printed certificate brings its digest along: it changes with every answer that arrives.
    const printed = decodeURIComponent(location.hash.slice(1));
    if (printed.startsWith("sha256:") && rows[0][0].includes(" certificate-of-ending ") && JSON.parse(proof).digest !== printed) {
      rows.splice(1, 0, ["  NOT PROVED", "the digest on the paper is another", printable(printed)]);
    }
    show(rows);
  };
  const able = async () => {
    try {
      const pair = await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
      return Boolean(pair.publicKey);
    } catch {
      return false;
    }
  };

  form.verifyHere = answer; // for whoever wants to try it from the console
  able().then((yes) => {
    if (!yes) {
      form.querySelector("[data-verify-unable]").hidden = false;
      return;
    }
    server.hidden = true;
    shownHere.hidden = false;
    form.addEventListener("change", check);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      check();
    });
    for (const name of ["dragenter", "dragover", "drop"]) {
      form.addEventListener(name, (event) => event.preventDefault());
    }
    form.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      form.elements.proof.files = event.dataTransfer.files;
      check();
    });
    form.dataset.ready = "here";
  });
})();
