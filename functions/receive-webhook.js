/*
Takes what GitHub, Stripe and others send when something happens, checks who sent it, and keeps it once.

curl -i -d '{"action": "opened"}' -H content-type:application/json \
     -H 'x-github-delivery: 1' localhost:8888/.netlify/functions/receive-webhook

WEBHOOK_SECRET   what the sender signs with (x-hub-signature-256, or stripe-signature); what is not
                 signed with it is refused. Without it everything is taken, and marked as unverified.

What came is in .quarterhour/webhooks/ (WEBHOOKS_DIR: another folder), a file for each delivery. Senders
repeat themselves when they doubt that they were heard: a delivery that is there already is not kept twice.
*/

const { createHash, createHmac, randomUUID, timingSafeEqual } = require('node:crypto');
const { linkSync, mkdirSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

const AGE_S_MAX = 300; // of a signature that says when it was made

exports.handler = async (event) => {
  // The very bytes that were signed: parsed and written again, JSON may look different.
  const body = Buffer.from(event.body ?? '', event.isBase64Encoded ? 'base64' : 'utf8');
  const secret = process.env.WEBHOOK_SECRET;
  if (secret && !isSigned(event.headers, body, secret)) {
    console.log('refused: the signature is missing or wrong');
    return answer(401, { error: 'The signature is missing or wrong.' });
  }
  let payload;
  try {
    payload = JSON.parse(body.length > 0 ? body : '{}');
  } catch (error) {
    return answer(400, { error: `The body must be JSON: ${error.message}.` });
  }

  const delivery = deliveryOf(event.headers, body, payload);
  const kind = event.headers['x-github-event'] ?? payload?.type ?? 'unknown';
  const kept = { delivery, kind, verified: Boolean(secret), received_at: new Date().toISOString(), payload };
  const isNew = keep(delivery, JSON.stringify(kept, null, 2));
  console.log(`${kind} ${delivery}: ${isNew ? 'kept' : 'was here before'}`);
  // For work that takes longer than a sender waits, call a background function here.
  return answer(isNew ? 201 : 200, { delivery, kind, verified: kept.verified, duplicate: !isNew });
};

function isSigned(headers, body, secret) {
  const github = headers['x-hub-signature-256'];
  if (github) return equal(github, `sha256=${hmac(secret, body)}`);

  // t=1700000000,v1=5257a8...,v1=...: the time is signed as well, so that nobody can send it again later.
  const fields = (headers['stripe-signature'] ?? '').split(',').map((field) => field.trim().split('='));
  const [, time] = fields.find(([name]) => name === 't') ?? [];
  if (!(Math.abs(Date.now() / 1000 - Number(time)) <= AGE_S_MAX)) return false;
  const expected = hmac(secret, Buffer.concat([Buffer.from(`${time}.`), body]));
  return fields.some(([name, value]) => name === 'v1' && equal(value ?? '', expected));
}

const hmac = (secret, bytes) => createHmac('sha256', secret).update(bytes).digest('hex');

/** Compares in the same time wherever they differ, which would tell how much of a guess is right. */
function equal(given, expected) {
  const [one, other] = [Buffer.from(given), Buffer.from(expected)];
  return one.length === other.length && timingSafeEqual(one, other);
}

/** What the sender calls this delivery, and for one that has no name, what is in it. */
function deliveryOf(headers, body, payload) {
  const name = headers['x-github-delivery'] ?? headers['webhook-id'] ?? payload?.id;
  if (typeof name === 'string' && /^[\w-]{1,100}$/.test(name)) return name;
  return createHash('sha256').update(body).digest('hex');
}

/** Write a file, unless it is there: false then. Nobody ever sees half of it, and of two at once one wins. */
function keep(delivery, text) {
  const folder = process.env.WEBHOOKS_DIR || '.quarterhour/webhooks';
  mkdirSync(folder, { recursive: true });
  const partial = join(folder, `${randomUUID()}.partial`);
  writeFileSync(partial, text);
  try {
    linkSync(partial, join(folder, `${delivery}.json`));
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  } finally {
    rmSync(partial);
  }
}

function answer(statusCode, content) {
  return { statusCode, headers: { 'content-type': 'application/json' }, body: JSON.stringify(content) };
}
