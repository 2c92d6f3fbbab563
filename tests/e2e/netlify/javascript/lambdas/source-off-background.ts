import type { Config } from '@netlify/functions';

export const config: Config = { background: false };

export const handler = async () => ({ statusCode: 200 });
