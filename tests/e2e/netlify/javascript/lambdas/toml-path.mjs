export default async (request, { params }) => new Response(params.word);
