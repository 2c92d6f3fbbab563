const { note } = require('./shared/shown');

exports.config = { retries: 2, retryDelay: [0.05, 0.1] };

exports.handler = async (event, context) => {
  note(context.awsRequestId, context.attempt);
  if (context.attempt <= JSON.parse(event.body).fails) throw new TypeError('not yet');
  return 'done';
};
