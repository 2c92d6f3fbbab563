exports.handler = async () => ({ statusCode: 'word' });
