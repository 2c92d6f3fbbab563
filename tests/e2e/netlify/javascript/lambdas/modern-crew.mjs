export const config = { path: ['/crew/:ship/:name', '/crew', '/files/*'] };

export default async (request, context) => Response.json(context.params);
