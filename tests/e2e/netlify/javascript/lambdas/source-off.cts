exports.config = { background: false };

exports.handler = async (event: { path: string }) => ({ statusCode: 200 });
