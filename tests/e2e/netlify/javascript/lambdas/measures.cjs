exports.handler = async ({ body, isBase64Encoded }) => ({
  statusCode: 200,
  body: `${body.length} ${isBase64Encoded}`,
});
