const { schedule } = require('@netlify/functions');
const { note, shown } = require('./shared/shown');

exports.handler = schedule('* * * * * *', async (event, context) => {
  note(context.functionName, shown(event, context));
});
