// The rules of the contact form, for both of its functions.

const EMAIL = /^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$/;
const TOPICS = ['orders', 'events', 'other'];

/** What is wrong with the fields of a message, by field; an empty object if nothing is. */
function validate({ name, email, topics, text }) {
  const errors = {};
  if (!name?.trim()) errors.name = 'Please tell us your name.';
  if (!EMAIL.test(email ?? '')) errors.email = 'This is no e-mail address.';
  if (!topics.every((topic) => TOPICS.includes(topic))) errors.topics = `Please choose among ${TOPICS.join(', ')}.`;
  if (!text || text.length < 10) errors.text = 'Please write at least 10 characters.';
  return errors;
}

module.exports = { validate };
