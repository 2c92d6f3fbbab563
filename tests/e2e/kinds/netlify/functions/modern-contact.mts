import type { Config, Context } from '@netlify/functions';

import { validate } from './lib/message.js';

interface Message {
  name?: string;
  email?: string;
  topics: string[];
  text?: string;
  files: { filename: string; type: string; bytes: number }[];
  'bot-field'?: string;
}

export default async (request: Request, context: Context): Promise<Response> => {
  let message: Message;
  try {
    message = await parse(request);
  } catch (error) {
    return Response.json({ error: (error as Error).message }, { status: 400 });
  }
  if (message['bot-field']) return new Response(); // what no human sees, only bots fill in

  const errors = validate(message);
  if (Object.keys(errors).length > 0) return Response.json({ errors }, { status: 422 });

  const response = await fetch(`${Netlify.env.get('API_URL')}/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(message),
  });
  if (!response.ok) return Response.json({ error: 'Please try again later.' }, { status: 502 });

  if (request.headers.get('accept')?.includes('text/html')) {
    context.cookies.set({ name: 'sent', value: 'yes', path: '/', httpOnly: true, sameSite: 'Lax' });
    return new Response(null, { status: 303, headers: { location: new URL('/thanks', context.url).href } });
  }
  return Response.json(await response.json(), { status: 201 });
};

async function parse(request: Request): Promise<Message> {
  if (request.headers.get('content-type')?.startsWith('application/json')) {
    const fields = await request.json();
    return { ...fields, topics: fields.topics ?? [], files: [] };
  }
  const form = await request.formData();
  const message: Message = { topics: form.getAll('topics') as string[], files: [] };
  for (const [name, value] of form) {
    if (value instanceof File) message.files.push({ filename: value.name, type: value.type, bytes: value.size });
    else if (name !== 'topics') message[name as 'name'] = value;
  }
  return message;
}

export const config: Config = {
  path: '/api/contact',
  method: 'POST',
};
