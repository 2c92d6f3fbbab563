import type { Config } from '@netlify/functions';

import { draw } from './lib/invoice.mjs';

export default async (request: Request): Promise<void> => {
  const order: { number: string; customer: string; items: { title: string; cents: number }[] } = await request.json();
  const pdf = await draw(order);
  const response = await fetch(`${Netlify.env.get('API_URL')}/storage/${order.number}.pdf`, {
    method: 'PUT',
    headers: { 'content-type': 'application/pdf' },
    body: pdf,
  });
  if (!response.ok) throw new Error(`The storage answered ${response.status}`);
  console.log(`Stored ${order.number}.pdf, ${pdf.length} bytes`);
};

export const config: Config = { path: '/api/invoices', background: true };
