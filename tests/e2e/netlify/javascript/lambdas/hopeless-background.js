exports.config = { retries: 0 };

exports.handler = async () => { throw new TypeError('no such thing'); };
