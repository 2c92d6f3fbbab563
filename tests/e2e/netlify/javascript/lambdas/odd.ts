// Results that no JSON can say.

import type { Handler } from '@netlify/functions';

const cases: Record<string, unknown> = {
  nothing: undefined,
  bytes: { statusCode: 200, body: Buffer.from('bytes') },
  'a status that is no text': { statusCode: () => 200 },
};

export const handler: Handler = async (event) => cases[event.queryStringParameters!.case!] as any;
