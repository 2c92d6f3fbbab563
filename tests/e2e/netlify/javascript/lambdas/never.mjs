export const config = { schedule: '@never' };

export default async () => new Response();
