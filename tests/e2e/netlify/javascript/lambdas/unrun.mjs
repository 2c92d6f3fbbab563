import { writeFileSync } from 'node:fs';

writeFileSync('notes/unrun', '"it was run"\n');

export const config = {
  path: ['/unrun/:word', '/unrun'],
  method: ['GET', 'PUT'],
  background: true,
};

export default async () => new Response();
