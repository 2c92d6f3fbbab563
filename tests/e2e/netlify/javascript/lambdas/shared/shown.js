// What handlers see, as JSON, and what they write down for the tests.

const fs = require('node:fs');
const { setTimeout } = require('node:timers/promises');

const NETLIFY = [
  'awsRequestId', 'functionName', 'functionVersion', 'invokedFunctionArn', 'memoryLimitInMB', 'logGroupName',
  'logStreamName', 'identity', 'clientContext', 'callbackWaitsForEmptyEventLoop',
];

exports.shown = (event, context) => ({
  event,
  context: {
    ...Object.fromEntries(NETLIFY.filter((name) => name in context).map((name) => [name, context[name] ?? null])),
    remaining: context.getRemainingTimeInMillis(),
  },
});

exports.note = (name, value) => fs.appendFileSync(`notes/${name}`, `${JSON.stringify(value)}\n`);

/** Wait until the test opens it. */
exports.gate = async (name) => {
  while (!fs.existsSync(`gates/${name}`)) await setTimeout(5);
};
