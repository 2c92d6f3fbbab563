const { Readable } = require('node:stream');
const { stream } = require('@netlify/functions');
const { gate } = require('./shared/shown');

async function* body(name) {
  yield 'one';
  await gate(name);
  yield Buffer.from('two');
}

exports.handler = stream(async (event) => ({
  statusCode: 201,
  headers: { 'content-type': 'text/x-pieces' },
  body: Readable.from(body(event.queryStringParameters.gate)),
}));
