'use strict';
// Register at the key-value store, and find the others there; whoever comes first waits a second and asks again.
const {ask} = require('./web');
const address = require('./address');

const store = process.argv[2];
const again = () => new Promise(resolve => setTimeout(resolve, 1000));

exports.register = async (key, port, name) => {
  const body = JSON.stringify({value: `${address()}:${port}`});
  for (;;) {
    try {
      await ask('POST', `http://${store}/${key}`, body, {'Content-Type': 'application/json'});
      return console.log(`${name} endpoint registered`);
    } catch (error) {
      console.log(`Waiting for the key-value store ${store}`);
      await again();
    }
  }
};

exports.find = async key => {
  for (;;) {
    try {
      const {status, body} = await ask('GET', `http://${store}/${key}`);
      if (status === 200) return `http://${body}`;
    } catch (error) { /* asked again */ }
    console.log(`Waiting for ${key}`);
    await again();
  }
};
