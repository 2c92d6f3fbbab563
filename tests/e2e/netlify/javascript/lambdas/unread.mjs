export const config = { path: process.env.ADDRESS ?? '/unread' };

export default async () => new Response();
