const { note, shown } = require('./shared/shown');

exports.config = { schedule: '* * * * * *' };

exports.handler = async (event, context) => {
  note(context.functionName, shown(event, context));
  return { statusCode: 200 };
};
