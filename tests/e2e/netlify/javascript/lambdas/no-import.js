const nowhere = require('nowhere_to_be_found');

exports.handler = async () => nowhere;
