'use strict';
const {serve} = require('./lib/web');

const values = new Map();

serve(8000, [
  ['GET', '/:key', ([key]) => values.has(key) ? [200, values.get(key)] : [404, 'Key not found']],
  ['POST', '/:key', ([key], request, body) => {
    values.set(key, JSON.parse(body).value);
    console.log(`${key}=${values.get(key)}`);
    return [200];
  }],
], () => console.log('server is listening on 8000'));
