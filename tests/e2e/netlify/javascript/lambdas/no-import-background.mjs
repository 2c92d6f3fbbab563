import { nowhere } from 'nowhere_to_be_found';

export const config = { retries: 0 };

export const handler = async () => nowhere;
