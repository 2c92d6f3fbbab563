const { PNG } = require('pngjs');

const { scale } = require('../lib/scale');

// A picture is posted, its thumbnail comes back.
module.exports.handler = async ({ body, isBase64Encoded, queryStringParameters }) => {
  const width = Number(queryStringParameters.width ?? 100);
  if (!(width >= 1 && width <= 1000)) return { statusCode: 400, body: 'width must be a number from 1 to 1000' };

  let picture;
  try {
    picture = PNG.sync.read(Buffer.from(body ?? '', isBase64Encoded ? 'base64' : 'utf8'));
  } catch (error) {
    return { statusCode: 415, body: `This is no PNG: ${error.message}` };
  }
  return {
    statusCode: 200,
    headers: { 'Content-Type': 'image/png', 'Cache-Control': 'no-store' },
    body: PNG.sync.write(scale(picture, width)).toString('base64'),
    isBase64Encoded: true,
  };
};
