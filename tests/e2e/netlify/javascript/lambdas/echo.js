const { note, shown } = require('./shared/shown');

exports.handler = async (event, context) => {
  const name = event.queryStringParameters.note;
  if (name) note(name, event.httpMethod);
  return {
    statusCode: 200,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(shown(event, context)),
  };
};
