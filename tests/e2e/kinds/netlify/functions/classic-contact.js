const busboy = require('busboy');

const { validate } = require('./lib/message');

const headers = { 'Content-Type': 'application/json' };

exports.handler = async (event) => {
  if (event.httpMethod !== 'POST') {
    return { statusCode: 405, headers: { Allow: 'POST' }, body: 'Method Not Allowed' };
  }
  let message;
  try {
    message = await parse(event);
  } catch (error) {
    return { statusCode: 400, headers, body: JSON.stringify({ error: error.message }) };
  }
  if (message['bot-field']) return { statusCode: 200, body: '' }; // what no human sees, only bots fill in

  const errors = validate(message);
  if (Object.keys(errors).length > 0) {
    return { statusCode: 422, headers, body: JSON.stringify({ errors }) };
  }
  const response = await fetch(`${process.env.API_URL}/messages`, {
    method: 'POST',
    headers,
    body: JSON.stringify(message),
  });
  if (!response.ok) return { statusCode: 502, headers, body: JSON.stringify({ error: 'Please try again later.' }) };

  if (event.headers.accept?.includes('text/html')) return { statusCode: 303, headers: { Location: '/thanks' } };
  return { statusCode: 201, headers, body: JSON.stringify(await response.json()) };
};

async function parse(event) {
  const type = event.headers['content-type'] ?? '';
  if (type.startsWith('application/json')) {
    const fields = JSON.parse(event.body);
    return { ...fields, topics: fields.topics ?? [], files: [] };
  }
  if (type.startsWith('application/x-www-form-urlencoded')) {
    const fields = new URLSearchParams(event.body);
    return { ...Object.fromEntries(fields), topics: fields.getAll('topics'), files: [] };
  }
  return parseMultipart(event);
}

function parseMultipart(event) {
  return new Promise((resolve, reject) => {
    const message = { topics: [], files: [] };
    const form = busboy({ headers: event.headers, defParamCharset: 'utf8', limits: { fileSize: 1024 * 1024 } });
    form.on('field', (name, value) => {
      if (name === 'topics') message.topics.push(value);
      else message[name] = value;
    });
    form.on('file', (name, file, { filename, mimeType }) => {
      let bytes = 0;
      file.on('data', (data) => (bytes += data.length));
      file.on('end', () => message.files.push({ filename, type: mimeType, bytes }));
    });
    form.on('error', reject);
    form.on('close', () => resolve(message));
    form.end(Buffer.from(event.body, event.isBase64Encoded ? 'base64' : 'utf8'));
  });
}
