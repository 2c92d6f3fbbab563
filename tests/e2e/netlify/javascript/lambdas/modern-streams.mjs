import { gate } from './shared/shown.js';

export default async (request) => {
  const name = new URL(request.url).searchParams.get('gate');
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    async start(controller) {
      controller.enqueue(encoder.encode('one'));
      await gate(name);
      controller.enqueue(encoder.encode('two'));
      controller.close();
    },
  });
  return new Response(body, { status: 201, headers: { 'content-type': 'text/x-pieces' } });
};
