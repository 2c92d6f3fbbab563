const { note } = require('./shared/shown');

exports.handler = async (event, context) => note(context.awsRequestId, event.body.length);
