export default async (request) => new Response(request.method);

export const config = { path: '/picky', method: ['POST', 'PATCH'] };
