"""The plots of the stories, as templates. stories.py chooses the characters and fills them in.

One line is one sentence or a few that belong together; a line with `?` before it may be left out. Keys: {n} the hero's
name or "the cat", {k} "the cat", {kind} "cat", {he} {him} {his} {self}; with a 2 the second character. {N}, {He}
and so on begin a sentence. {intro2} "a shy dog named Rex". {place} {other} two places, {thing} "red hat", {colour}.
"""

from collections import namedtuple

# name; themes; about: what a prompt may say after "a cat who"; moral; adjectives that fit; who may be the hero
# (a animal, p person, t thing); world (any, land, sea); lines.
Frame = namedtuple("Frame", "name themes about moral adjectives kinds world lines")

FRAMES = [Frame(*f) for f in [
    ("lost", "friendship,helping", "loses {his} {thing}|looks for {his} lost {thing}|lost a~ {thing}",
     "It is easier to find what is lost when a friend helps you.",
     "little,small,young,cheerful,busy,funny,kind,sleepy", "apt", "any", """
{N} had a~ {thing} that {he} loved [very much|more than anything|with all {his} heart].
?{He} took it everywhere, even to the {other}.
One [morning|day|afternoon], {n} [could not find it anywhere|looked for the {thing}, but it was gone|saw that the {thing} was gone].
{He} looked [under the leaves|behind the stones|here and there], and {he} looked near the {place}, but it was not there.
?"[Oh no|Oh dear]," said {n}. "What shall I do now?"
Then {he} met {intro2}. "Why are you so sad?" asked {n2}.
"I have lost my {thing}," said {n}. "[I have looked everywhere|I do not know where to look]."
"[Do not cry|Do not worry]," said {n2}. "[I will help you|We will look for it together|Two pairs of eyes see more than one]."
[So they went to the {other} together|Together they went all the way to the {other}] and looked [carefully|in every corner].
?They were getting tired, and the sun was going down.
[Suddenly|At last], {n2} saw something {colour} [in the grass|between two stones|behind an old log]. It was the {thing}!
{N} was so happy that {he} [jumped up and down|laughed out loud|gave {n2} a big hug]. "Thank you, [my friend|dear friend]!" {he} said.
[From that day on|After that], {n} and {n2} were [the best of friends|good friends and played together every day]."""),
    ("fear", "courage,bravery", "is afraid of the {fear}|was afraid of the {fear}|learns to be brave",
     "Being brave means doing the right thing even when you are afraid.",
     "little,small,shy,young,gentle,tiny,quiet", "ap", "any", """
{N} was afraid of only one thing: the {fear}.
?[When the others talked about it, {n} hid {his} face|Just thinking about it made {him} shake].
?"I wish I were brave," {he} often said to {self}.
One [evening|night|day], {n} heard [a small voice|somebody calling] near the {place}. "Help! Please help me!"
It was {intro2}, who was [stuck|caught] [under a fallen branch|between two big stones] and could not get free.
"[I cannot come|I am too scared]," thought {n}, for {he} had to go past the {fear}. {His} heart was beating fast.
But {n2} called again, and {n} [took a deep breath|closed {his} eyes for a moment|thought of how alone {n2} must feel].
Step by step, {he} went on, [until {he} reached {n2}|and soon {he} stood beside {n2}].
?"I am here," said {n}. "I will not leave you alone."
{N} pulled and pushed with all {his} strength, and at last {n2} was free.
"You are the bravest {kind} I know," said {n2}.
"But I was afraid the whole time," said {n}.
"[That is what makes you brave|Being brave does not mean that you are never afraid]," said {n2} with a smile.
That night, the {fear} did not seem so terrible [any more|to {n} any more]."""),
    ("lonely", "friendship,kindness", "is lonely|has no friends|was looking for a friend|makes a new friend",
     "A kind word can be the start of a friendship.",
     "lonely,little,shy,quiet,small,young,old,big", "apt", "any", """
{N} had [no friends|nobody to talk to|nobody to play with], and the days were [very long|long and quiet].
?{He} watched the others play near the {place}, but {he} was too shy to ask.
?In the evening {he} often looked at the sky and [sighed|wished for a friend].
One [morning|day], {he} met {intro2} [beside the {place}|on the way to the {place}].
{N2} [was sitting there all alone|looked as lonely as {n} did]. "Hello," said {n} in a quiet voice. "[May I sit with you|Would you like to play]?"
{N2} looked up and smiled. "[I would like that very much|Yes, please]," {he2} said. "[I am new here|I do not know anybody here]."
[They talked about everything they liked|They told each other about their lives], and soon they were laughing.
?They found out that both of them liked [rainy days|old songs|stories about the sea|counting the stars].
When it was time to go home, {n2} asked, "[Will you come again tomorrow|Shall we meet again tomorrow]?"
"[Of course|Yes, I promise]," said {n}. "[That is what friends do|Friends always come back]."
[And so they met every day|After that, they met every day], and {n} was never lonely again."""),
    ("share", "sharing,kindness,generosity", "learns to share|does not want to share|finds a basket of {food}",
     "Good things taste better when they are shared.",
     "little,hungry,busy,young,small,big,clever", "a", "any", """
One day, {n} found [a whole pile|a big heap|more than {he} could eat] of {food} near the {place}.
"[This is all mine|How lucky I am]!" said {n}. "[I will eat it all by myself|I will not tell anybody about it]."
?{He} hid the {food} [behind a big rock|in a safe corner] and sat down in front of it.
Then {intro2} came along. "I have not eaten since yesterday," said {n2}. "[Could you give me a little|May I have some], please?"
At first {n} wanted to say no. But {n2} looked so [tired|thin|hungry] that {n} [felt sorry for {him2}|could not send {him2} away].
"[Come and sit with me|Here, take some]," said {n}. "There is enough for both of us."
They ate together, and {n} was surprised. The {food} tasted better than ever before.
?"It is nicer to eat with somebody," said {n}.
Some weeks later, [it was {n} who was hungry|{n} could not find anything to eat], for [the weather had turned bad|there was no more food near the {place}].
Then there was a knock, and there stood {n2} with [a basket full of food|the best food {he2} had found]. "[You shared with me|You were kind to me]," said {n2}. "Now I will share with you."
{N} [smiled from ear to ear|was very glad], and they [had a wonderful meal|ate until they were full]."""),
    ("way_home", "helping,kindness,family", "is lost|gets lost in the {lost_in}|cannot find the way home",
     "When you are lost, it is good to ask for help.",
     "little,young,small,curious,tiny", "ap", "any", """
One day, {n} [followed a butterfly|went to look for something new|wanted to see what was behind the {place}] and went too far.
When {he} looked around, [nothing looked familiar|{he} did not know where {he} was]. {He} was lost in the {lost_in}.
?It was getting dark, and strange sounds came from all sides.
{N} sat down and began to cry. "I want to go home," {he} said.
"[Who is crying there|What is the matter]?" asked a friendly voice. It was {intro2}.
"I am lost," said {n}. "[I cannot find my home|I do not know the way home]."
"What can you see from your home?" asked {n2}.
{N} thought for a moment. "[From my home I can see the {other}|There is the {other}, just around the corner]," {he} said.
"[Then I know the way|I know that place very well]," said {n2}. "[Come with me|Follow me]."
They went side by side, and {n2} [told funny stories|sang a song] so that {n} would not be afraid.
?At last they saw a light in the distance.
{N}'s mother was waiting [at the door|there], and she [was so happy that she cried|held {him} tight]. "Thank you, {n2}," she said. "Please stay and eat with us."
[And that is what {n2} did|{N2} stayed for dinner, and everybody was happy]."""),
    ("honest", "honesty,truth", "breaks a~ {broken}|tells the truth|learns to be honest",
     "It is always better to tell the truth.",
     "young,little,funny,busy,cheerful,small", "ap", "any", """
One [rainy|windy|quiet] day, {n} was playing with a ball [although {he} knew that {he} should not|near {n2}'s home].
The ball flew through the air and hit a~ {broken}. Crash! It broke into many pieces.
The {broken} belonged to {n2}, {introx2}, who had [gone to the {place}|just gone out].
"[Nobody has seen me|Nobody will ever know]," thought {n}. "[I could say that it was the wind|I could just go away]."
?{He} hid the pieces and tried to forget about it.
But {he} [could not sleep that night|had a strange feeling in {his} stomach], because {he} knew it was wrong.
[The next morning|In the end], {n} went to {n2}. "I broke your {broken}," {he} said in a small voice. "It was an accident, and I am very sorry."
{N2} was quiet for a moment. Then {he2} said, "[I am sad about the {broken}|I loved that {broken}], but I am glad that you told me the truth."
?"Are you not angry?" asked {n}. "A little," said {n2}, "but honesty is worth more than a~ {broken}."
[Together they glued the pieces|They spent the afternoon putting the pieces together], and the {broken} looked almost as good as before.
[That night, {n} slept very well|{N} felt as light as a feather]."""),
    ("storm", "friendship,kindness,home", "gets caught in a storm|is caught in a storm|finds shelter from a storm",
     "There is always room for one more when the heart is warm.",
     "little,old,gentle,kind,quiet,lonely,friendly", "ap", "land", """
One [evening|afternoon], dark clouds came over the {place}, and a great storm began.
The wind [howled|roared], [the rain came down like a waterfall|the thunder rolled], and {n} was glad to be safe [at home|inside].
?{He} made {self} comfortable and listened to the storm.
[Suddenly|Then] {he} heard a quiet knock. "[Who can that be|Who is out in this weather]?" {he} wondered.
It was {intro2}, cold and tired. "[The storm has blown my home away|I cannot get home in this storm]," said {n2}. "May I stay with you until it is over?"
{N}'s home was very small, [but {he} did not think twice|but {his} heart was big]. "[Come in quickly|Of course, come in]," {he} said.
{He} gave {n2} [a warm blanket|something warm] and [a bowl of soup|a piece of bread].
?They told each other stories while the storm raged outside.
In the morning, the sky was clear, and [a rainbow stood over the {place}|everything was shining].
"How can I thank you?" asked {n2}. "[Just come and visit me|Be my friend]," said {n}.
[A few days later they built a new home for {n2}, right next to {n}'s|From then on, {n2} came to visit every week], and no storm could ever scare them again."""),
    ("treasure", "friendship,adventure", "finds a treasure map|looks for a treasure|goes on an adventure|finds a treasure",
     "The best treasure is a good friend.",
     "curious,brave,clever,young,cheerful,funny,little", "ap", "any", """
One [day|morning], {n} found an old map [under a stone|inside a bottle|in a wooden box]. There was a big {colour} cross on it.
"A treasure map!" cried {n}, and {he} ran to {intro2}. "[Will you come with me|Let us find the treasure together]!"
[They packed some food|They took a rope and some food] and set off [at once|before the sun was up].
First they came to the {place}, where they had to [climb over wet stones|cross deep water|push through thick bushes].
?"I am scared," said {n2}. "Hold on to me," said {n}, and so they both got across.
Then they reached the {other}, where {n} [slipped and almost fell|got stuck]. But {n2} [held on tight|pulled {him} out].
At last they found the place with the cross. They dug and dug until they hit [something hard|an old chest].
[Inside there was only a letter|They opened it, and there was only a piece of paper]. It said: "The friend who came with you is the real treasure."
{N} and {n2} looked at each other and [began to laugh|laughed until it hurt].
"[That is true|The letter is right]," said {n}. "[I could not have done it without you|I would not give you away for all the gold in the world]."
[Then they went home, arm in arm|They kept the map and went on many more adventures]."""),
    ("seed", "patience,nature,hope", "plants a seed|has a garden|wants to grow a flower|waits for a flower to grow",
     "Good things take time.",
     "young,curious,little,old,gentle,small,quiet", "ap", "land", """
One spring day, {n} found a small brown seed near the {place}.
"[What will it become|I wonder what you will be]?" {he} asked, and {he} planted it [in the soft earth|beside {his} home].
{He} gave it water every day, but nothing happened.
?"[Grow faster|Please grow]," said {n}, but the seed did not hurry.
{Intro2} came by. "[You are wasting your time|Nothing will ever grow there]," {he2} said. "Why do you not give up?"
"[I think it only needs time|It is only sleeping]," said {n}, and {he} [kept watering it|did not give up].
The days passed, and the rain came, and the sun came.
Then, one [bright|warm] morning, there was a tiny green leaf! {N} [danced with joy|could hardly believe {his} eyes].
The plant grew [taller and taller|day by day], and in summer it had a beautiful {colour} flower.
?Bees and butterflies came from far away to visit it.
"[You were right|I was wrong]," said {n2}. "[Can you teach me how to wait like that|It is the most beautiful flower I have ever seen]."
{N} smiled and gave {n2} [a seed of {his2} own|three new seeds]. "Just give it water and time," {he} said."""),
    ("skill", "practice,perseverance,confidence", "wants to learn to {skill}|learns to {skill}|cannot {skill}",
     "Practice makes better.",
     "young,little,shy,cheerful,funny,small,curious", "apt", "land", """
More than anything else, {n} wanted to learn to {skill}.
The first time {he} tried, it [was a disaster|went all wrong], and [the others laughed|somebody laughed out loud].
?{N} felt hot and cold and ran away to the {place}.
There {he} met {intro2}, who was known for {skilling} better than anybody else.
"[I will never learn it|I am not good at anything]," said {n}.
"[Do you know how often I failed|I failed a hundred times before it worked]," said {n2}. "[Come here every morning, and we will practise together|All you need is a little practice every day]."
So {n} practised every day, in the sun and in the rain.
?Sometimes {he} wanted to give up, but {n2} always said, "Just one more time."
Week by week it got [a little better|easier].
Then came the day of the big festival. {N}'s heart was beating fast when {he} [stepped forward|stood in front of everybody].
{He} {skilled} so well that [nobody made a sound|everybody listened in wonder]. Then they all cheered.
"[I knew that you could do it|I am proud of you]," said {n2}, and {n} [smiled the widest smile|had never been so happy]."""),
    ("birthday", "friendship,surprise,happiness", "has a birthday|thinks that everybody forgot {his} birthday|gets a birthday surprise",
     "Your friends think of you more often than you know.",
     "young,little,cheerful,old,small,funny,kind", "apt", "any", """
It was {n}'s birthday, and {he} woke up [very early|with a big smile].
"[Today everybody will visit me|Today will be a wonderful day]," {he} thought. But nobody came.
{He} went to see {n2}, {introx2}, but {n2} only said, "[I am sorry, I have no time today|I am very busy today]," and closed the door.
?At the {place}, {he} met some others, but they only whispered and hurried away.
{N} went home slowly. "[They have all forgotten me|Nobody remembers my birthday]," {he} thought, and a tear rolled down.
In the evening, there was a knock. "[Come quickly|Please come with me]," said {n2}. "[I need your help at the {place}|There is something you must see]."
{N} followed {him2} to the {place}. It was dark and very quiet there.
Suddenly there was light everywhere. "Surprise!" called {n2} and all the friends. "Happy birthday, {n}!"
There were [lanterns and music|flowers and a big cake], and {n2} gave {him} {gift}.
?"We were busy all day with your party," said {n2} and laughed.
{N} did not know what to say. "[This is the best birthday of my life|I thought that you had forgotten me]," {he} said at last.
[They danced and sang until the moon was high|They ate cake until late at night]."""),
    ("snow", "fun,seasons,happiness", "plays in the snow|sees snow for the first time|enjoys a winter day",
     "A day with friends is never cold.",
     "young,cheerful,little,curious,funny,small", "ap", "land", """
One winter morning, {n} looked out and [could not believe {his} eyes|gasped]. The whole world was white!
"[What is that|Has somebody covered everything with sugar]?" {he} asked.
"[That is snow|It is snow, of course]," said {n2}, {introx2}. "[Have you never seen it before|Come out and touch it]!"
{N} put one foot into it. It was soft and cold, and it tickled.
?{He} caught a snowflake and watched it melt.
First they [made a snowman with a carrot nose|rolled a big snowball], and then they [slid down the hill|ran to the {place}].
?{N} slid so fast that {he} landed in a pile of snow. Only {his} nose could be seen!
They laughed so much that they fell down [again and again|side by side].
When {n}'s nose was [red|very cold], they went inside and sat by the fire with [hot chocolate|warm soup].
"[I hope it snows again tomorrow|This was the best day of the winter]," said {n}.
Outside, the snow went on falling, quietly and softly, [on the {place} and on every roof|all through the night]."""),
    ("moon", "dreams,friendship,night", "wants to touch the moon|wants to fly to the moon|loves the moon|cannot sleep",
     "You can carry a little light wherever you go.",
     "little,sleepy,young,small,curious,dreamy", "ap", "land", """
Every night, {n} looked up at the moon. "[I want to touch it|If only I could bring it home]," {he} said.
{He} climbed [the highest tree|the highest hill near the {place}], but the moon was still far away.
?Then {he} tried to catch it with a net, but the net stayed empty.
"What are you doing up there?" called {intro2}.
"I want to bring the moon home," said {n}, "because [it is so dark in my room|I cannot sleep in the dark]."
{N2} [thought for a while|smiled]. "Come with me," {he2} said, and {he2} led {him} to the {place}.
There was a small pool of water, and in the water shone the moon, round and bright.
?"It came down to us!" whispered {n}.
{N2} filled a bowl with the water. "[Put this beside your bed|Take it home carefully]," {he2} said. "Then the moon will shine in your room."
{N} carried the bowl home, and indeed, there was a little moon in it.
[That night, {n} slept better than ever before|{He} said good night to the little moon and fell asleep at once]."""),
]]

FEARS = ["dark", "deep water", "thunder", "old cave", "strong wind", "big black dog", "night", "long tunnel"]
BROKENS = ["blue vase", "big mirror", "old clock", "red teapot", "glass bowl", "flower pot", "yellow cup", "window"]
GOALS = ["sea", "mountains", "big city", "end of the rainbow", "desert", "North Pole", "great waterfall",
         "highest mountain"]
LOST_IN = ["forest", "dark forest", "big city", "fog", "snow", "hills", "market"]
