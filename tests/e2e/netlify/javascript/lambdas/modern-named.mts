// What the name does not say, the config does; other keys are Netlify's own affair.

import type { Config } from '@netlify/functions';

export default async (request: Request): Promise<Response> => new Response(request.method);

export const config: Config = {
  path: '/named/:word',
  rateLimit: { windowLimit: 60, windowSize: 60, aggregateBy: ['ip', 'domain'] },
  displayName: 'A name',
  region: 'cmh',
};
