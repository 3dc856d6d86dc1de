'use strict';
// The address that a service announces: the first that is not loopback, as most programs look it up.
const os = require('os');

module.exports = () => {
  for (const cards of Object.values(os.networkInterfaces())) {
    const card = cards.find(one => one.family === 'IPv4' && !one.internal);
    if (card) return card.address;
  }
  return '127.0.0.1';
};
