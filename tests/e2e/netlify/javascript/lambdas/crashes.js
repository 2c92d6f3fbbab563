const ways = {
  exit: () => process.exit(3),
  signal: () => process.kill(process.pid, 'SIGKILL'),
  fault: () => process.abort(),
  uncaught: () => new Promise(() => { setTimeout(() => { throw new RangeError('nobody catches it'); }, 5); }),
  unhandled: () => new Promise(() => { Promise.reject(new RangeError('nobody handles it')); setTimeout(() => {}, 1000); }),
  starves: () => new Promise(() => {}),
};

exports.handler = async (event) => {
  await ways[event.queryStringParameters.how]?.();
  return { statusCode: 200 };
};
