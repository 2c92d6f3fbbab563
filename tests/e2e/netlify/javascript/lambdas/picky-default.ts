export default async (request: Request) => new Response(request.method);

export const config = { method: 'DELETE' } as const;
