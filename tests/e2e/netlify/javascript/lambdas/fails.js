class TeapotError {
  constructor() {
    this.short = true;
    this.stout = true;
  }
}

const ways = {
  object: () => { throw new TeapotError(); },
  text: () => { throw 'only text'; },
  null: () => { throw null; },
  nothing: () => { throw undefined; },
  rejects: () => Promise.reject(new RangeError('rejected')),
  'rejects with nothing': () => Promise.reject(),
};

exports.handler = (event) => {
  const way = ways[event.queryStringParameters.how];
  if (way) return way();
  throw new TypeError('no such thing');
};
