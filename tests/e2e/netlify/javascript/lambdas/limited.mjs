export const config = { timeout: 0.5 };

const ways = {
  never: () => new Promise(() => { setInterval(() => {}, 1000); }),
  busy: () => { for (;;); },
  waits: () => new Promise((resolve) => { setTimeout(resolve, 120_000); }),
};

export const handler = async (event) => {
  await ways[event.queryStringParameters.how]?.();
  return { statusCode: 200 };
};
