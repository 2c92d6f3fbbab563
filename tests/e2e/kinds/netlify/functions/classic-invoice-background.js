exports.handler = async (event, context) => {
  const { draw } = await import('./lib/invoice.mjs');
  const order = JSON.parse(event.body);
  console.log(`Drawing invoice ${order.number} (${context.awsRequestId})`);
  const pdf = await draw(order);

  const response = await fetch(`${process.env.API_URL}/storage/${order.number}.pdf`, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/pdf' },
    body: pdf,
  });
  if (!response.ok) throw new Error(`The storage answered ${response.status}`);
  return { statusCode: 200, body: JSON.stringify({ number: order.number, bytes: pdf.length }) };
};
