// GitHub's webhooks: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
const crypto = require('crypto');

exports.handler = function (event, context, callback) {
  context.callbackWaitsForEmptyEventLoop = false;
  const body = Buffer.from(event.body || '', event.isBase64Encoded ? 'base64' : 'utf8');
  const signature = event.headers['x-hub-signature-256'] || '';
  const expected = 'sha256=' + crypto.createHmac('sha256', process.env.WEBHOOK_SECRET).update(body).digest('hex');
  if (!equal(signature, expected)) {
    console.log('Refused', event.headers['x-github-delivery']);
    return callback(null, { statusCode: 401, body: 'Wrong signature' });
  }
  const kind = event.headers['x-github-event'];
  if (kind === 'ping') return callback(null, { statusCode: 200, body: 'pong' });

  const payload = JSON.parse(body);
  callback(null, {
    statusCode: 202,
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ kind, repository: payload.repository.full_name, commits: payload.commits.length }),
  });
};

function equal(one, other) {
  return one.length === other.length && crypto.timingSafeEqual(Buffer.from(one), Buffer.from(other));
}
