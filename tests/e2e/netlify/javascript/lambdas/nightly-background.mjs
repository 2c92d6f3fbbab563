export default async () => {};

export const config = { schedule: '@daily' };
