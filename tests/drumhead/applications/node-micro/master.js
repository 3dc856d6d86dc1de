'use strict';
const {serve, image, form, ask} = require('./lib/web');
const {register, find} = require('./lib/registry');

const relay = (method, key, path) => async ([id]) => {
  const {status, body} = await ask(method, `${await find(key)}${path.replace(':id', id)}`);
  return [status, body];
};

serve(8003, [
  ['POST', '/task', async (names, request, body) => {
    const found = image(request, body);
    if (!found) return [400, 'Image not found'];
    const db = await find('dbendpoint');
    const id = (await ask('POST', `${db}/task`)).body;
    await ask('POST', `${await find('storageendpoint')}/upload/${id}`, ...form(found));
    await ask('POST', `${db}/task/${id}/ready`);
    return [200];
  }],
  ['GET', '/task/next', relay('GET', 'dbendpoint', '/task/next')],
  ['GET', '/task/:id/download', relay('GET', 'storageendpoint', '/download/:id')],
  ['POST', '/task/:id/finish', relay('POST', 'dbendpoint', '/task/:id/finish')],
  ['GET', '/task/:id/ready', async ([id]) => {
    const {status, body} = await ask('GET', `${await find('dbendpoint')}/task/${id}`);
    return status === 200 ? [200, String(JSON.parse(body).state === 2)] : [404, 'Task not found'];
  }],
], async () => {
  await register('masterendpoint', 8003, 'Master');
  console.log('Master is listening on 8003');
});
