const { gate, note } = require('./shared/shown');

exports.handler = async (event) => {
  await gate(event.body);
  note(event.body, event.httpMethod);
};
