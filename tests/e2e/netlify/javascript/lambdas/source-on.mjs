export const config = { background: true };

export const handler = async () => ({ statusCode: 200 });
