const { note, shown } = require('./shared/shown');

exports.handler = async (event, context) => {
  note(context.awsRequestId, shown(event, context));
  return { statusCode: 200, headers: { 'x-secret': '1' }, body: 'for nobody' };
};
