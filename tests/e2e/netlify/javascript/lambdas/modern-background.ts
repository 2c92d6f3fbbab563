import { note } from './shared/shown.js';
import type { Config, Context } from '@netlify/functions';

export default async (request: Request, context: Context) => {
  note(await request.text(), request.method);
  return new Response('for nobody');
};
