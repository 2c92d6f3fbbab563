// As handlers were written before there were promises.

exports.handler = (event, context, callback) => {
  const answer = { statusCode: 200, body: event.queryStringParameters.how };
  const later = (act) => { setTimeout(act, 5); };
  switch (event.queryStringParameters.how) {
    case 'result': return callback(null, answer);
    case 'a result later': return later(() => callback(null, answer));
    case 'undefined and a result': return callback(undefined, answer);
    case 'error': return callback(new RangeError('called back'));
    case 'an error later': return later(() => callback(new RangeError('called back')));
    case 'text': return callback('only text');
    case 'nothing': return callback();
    case 'done': return context.done(null, answer);
    case 'done with an error': return context.done(new RangeError('done'));
    case 'succeed': return later(() => context.succeed(answer));
    case 'fail': return later(() => context.fail(new RangeError('failed')));
    default: return undefined; // it never calls back
  }
};
