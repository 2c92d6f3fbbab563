export const handler = async (event) => JSON.parse(event.body);
