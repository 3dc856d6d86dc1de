'use strict';
const {ask, form} = require('./lib/web');
const {find} = require('./lib/registry');

// A negative of a binary PPM: the head is three numbers after P6, then come the colours.
const negative = photo => {
  const head = /^P6\s+\d+\s+\d+\s+\d+\s/.exec(photo.subarray(0, 64).toString('latin1'))[0].length;
  return Buffer.concat([photo.subarray(0, head), Buffer.from(photo.subarray(head).map(colour => 255 - colour))]);
};

const work = async () => {
  const [master, storage] = [await find('masterendpoint'), await find('storageendpoint')];
  const next = await ask('GET', `${master}/task/next`);
  if (next.status !== 200) return false;
  const {id} = JSON.parse(next.body);
  console.log(`Working on task ${id}`);
  const photo = (await ask('GET', `${master}/task/${id}/download`)).body;
  console.log(`\tprocessing /worker/${id}`);
  await ask('POST', `${storage}/upload/${id}`, ...form(negative(photo)));
  await ask('POST', `${master}/task/${id}/finish`);
  console.log('\tdone');
  return true;
};

(async () => {
  let said = false;
  for (;;) {
    const worked = await work().catch(error => console.log(error.message));
    if (!worked && !said) console.log('Nothing to do at the moment');
    said = !worked;
    if (!worked) await new Promise(resolve => setTimeout(resolve, 1000));
  }
})();
