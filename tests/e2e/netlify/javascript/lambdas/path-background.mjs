export default async () => {};

export const config = { path: '/later/:what' };
