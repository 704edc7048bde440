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
{N}'s mother was waiting [at the door|there], and she [was so happy that she cried|held {him} tight]. "Thank you, {call2}," she said. "Please stay and eat with us."
[And that is what {n2} did|{N2} stayed for dinner, and everybody was happy]."""),
    ("race", "patience,perseverance,confidence", "wins a race|takes part in a race|wants to win a race",
     "Slow and steady is better than fast and careless.",
     "little,small,quiet,patient,shy,young,old", "apt", "any", """
Every year there was a big race to the {place}, and this year {n} wanted to take part.
{Intro2} heard this and laughed. "[You will never win|You are much too slow]," said {n2}. "[I am the fastest of all|Nobody is faster than I am]."
"[We will see|I will try my best]," said {n} [calmly|with a smile].
On the day of the race, everybody came to watch. "[Ready, steady, go|One, two, three, go]!" called [an old owl|the mayor].
{N2} [was far ahead in no time|went off like the wind], and soon {n} could not see {him2} any more.
"[I have so much time|This is too easy]," thought {n2}, and {he2} [lay down for a nap in the shade|stopped to have a long lunch].
{N} did not stop. {He} went on and on, slowly but steadily.
?{He} was tired and thirsty, but {he} did not give up.
[When {n2} woke up from {his2} dreams|When {n2} at last looked up], it was too late: {n} was already at the {place}, and everybody was cheering.
"You did not stop even once," said {n2}. "[I was wrong to laugh at you|I am sorry that I laughed]."
{N} smiled and said, "[Next time, let us run together|Come, let us celebrate together]." """),
    ("build", "perseverance,teamwork,patience", "builds a~ {build}|wants to build a~ {build}|never gives up",
     "If something does not work the first time, try again.",
     "clever,young,curious,little,cheerful,busy,friendly", "ap", "land", """
{N} wanted to build a~ {build}.
?{He} had been thinking about it for [weeks|a long time].
{He} [collected wood and rope|found some wood, some rope and some nails] and worked [all day|from morning to evening].
But when the {build} was ready, [a strong wind came|{he} touched it with one finger], and it fell apart.
?"[You should give up|That will never work]," said [a crow in a tree|a neighbour].
{N} was [sad|disappointed], but {he} did not give up. {He} tried a second time, and again it fell apart.
Then {intro2} came by. "What are you making?" {he2} asked.
"A~ {build}," said {n}, "but it always falls apart."
{N2} looked at it carefully. "[I think the rope is too loose|I think it needs stronger nails|I think the wood is too thin]," {he2} said. "[May I help you?|Let us try it together!]"
[They worked side by side|Together they measured, sawed and tied], and this time they [took their time|did everything slowly and carefully].
?When the last piece was in its place, they both held their breath.
The {build} [stood strong and straight|did not fall apart], even in the wind!
"[We did it|It works]!" cried {n}, and they danced around it. [Everybody came to see the beautiful {build}|It was the finest {build} in the whole land]."""),
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
    ("wish", "gratitude,happiness", "makes a wish|wishes to be somebody else|wants to be a bird|catches a falling star",
     "Be happy with who you are.",
     "young,little,small,curious,shy,quiet", "apt", "land", """
{N} was not happy with [{his} life|being a~ {kind}]. "[I wish I were somebody else|I wish I were big and important]," {he} often said.
One night, {he} saw a falling star over the {place}, and {he} made a wish: "I wish to be [a king|a great bird|the sun]."
[In the morning, the wish had come true|The next morning, {he} woke up, and it was true]!
?At first it was wonderful, and {n} laughed with joy.
But soon {he} noticed that something was missing. [Nobody came to play with {him}|Nobody called {him} by {his} name], and {he} felt lonely.
{N} saw {intro2}, {his} old friend, sitting alone near the {place}. "[I miss {n} so much|Where is {n}]?" said {n2}.
"I am here!" called {n}, but {n2} [did not know {him}|could not hear {him}].
That night, {n} waited for another star. "[Please make me a~ {kind} again|I want to be myself again]," {he} wished.
When {he} woke up, {he} was {self} again. {He} ran to {n2} as fast as {he} could.
?"Where have you been?" asked {n2}. "Far away," said {n}, "but I will never go there again."
["There is nothing better than being myself," said {n}|And {n} never wanted to be anybody else again]."""),
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
    ("mouse_lion", "kindness,helping", "helps somebody much bigger|saves a friend|is too small to help|is very small",
     "Nobody is too small to help.",
     "little,small,tiny,young", "ap", "any", """
{N} was so small that nobody ever asked {him} for help.
?"[You are too little|What could you do]?" the others said.
One day, {he} met {introbig2}, who was [very big and strong|the strongest of all]. {N2} laughed. "[You are no bigger than my foot|How small you are]!"
"[I may be small|Small I am], but one day I might help you," said {n}.
?{N2} thought that this was the funniest thing {he2} had ever heard.
Not long after that, {n2} was caught in a net near the {place}. {He2} pulled and pulled, but the net only got tighter.
?"Help!" {he2} cried, but the big ones were afraid of the net and ran away.
{N} heard {him2} and came at once. "[Keep still|Do not move]," {he} said, and {he} began to [open the knots one by one|pull at the knots with {his} tiny fingers].
It took [a long time|all night], but {n} did not stop, and at last there was a hole that was big enough.
{N2} was free! "[I am sorry that I laughed at you|You saved my life]," {he2} said. "You have the biggest heart of all."
[And from that day on, nobody said that {n} was too small|From then on, they were friends, the big one and the small one]."""),
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
Suddenly there was light everywhere. "Surprise!" called {n2} and all the friends. "Happy birthday, {call}!"
There were [lanterns and music|flowers and a big cake], and {n2} gave {him} {gift}.
?"We were busy all day with your party," said {n2} and laughed.
{N} did not know what to say. "[This is the best birthday of my life|I thought that you had forgotten me]," {he} said at last.
[They danced and sang until the moon was high|They ate cake until late at night]."""),
    ("noise", "courage,curiosity", "hears a strange noise|hears a noise at night|is woken by a strange noise",
     "Many things are less scary when you look at them closely.",
     "young,little,sleepy,curious,shy,small,old", "ap", "land", """
One night, {n} was woken up by a strange noise. "[Tap, tap, tap|Scratch, scratch|Boo, hoo]," it went.
"[What could that be|Is it a monster]?" thought {n}, and {he} pulled the blanket over {his} head.
?The noise stopped for a moment. Then it began again, even louder.
{N} [took a deep breath|gathered all {his} courage], lit a small lantern and went to look.
The noise came from [the dark corner behind the {place}|outside, from the direction of the {place}].
?Every shadow looked like a giant with long arms.
{N} went closer and closer, held up the light, and saw {intro2}!
"[I did not want to scare you|I am sorry about the noise]," said {n2}. "I {noise_reason}."
{N} began to laugh. "And I thought that you were a monster!" {he} said.
"A monster? Me?" said {n2}, and then {he2} had to laugh too.
{N} [made some warm cocoa|shared some biscuits], and {he} helped {n2} as well as {he} could.
[After that night, {n} was never afraid of noises in the dark again|Since that night, {n} always looks first before {he} is afraid]."""),
    ("neighbour", "kindness,helping", "helps an old neighbour|does a good deed|helps others|is very kind",
     "Kindness always comes back.",
     "young,kind,little,friendly,cheerful,gentle", "ap", "land", """
Next to {n} lived {n2}, {introx2}, who was [old and often ill|too old to do heavy work].
One [cold|windy|hot] day, {n} saw that {n2} [had nothing left to eat|could not carry the heavy basket home].
"[Let me help you|I will do that for you]," said {n}, and {he} [carried everything home|brought {him2} food from the market].
?"I have nothing to give you," said {n2}. "You do not have to give me anything," said {n}.
From then on, {n} came every day. {He} [cleaned|fetched water], {he} [cooked|lit the fire], and {he} listened to {n2}'s old stories.
?Sometimes the others asked {him} to play, but {n} always visited {n2} first.
When [winter|summer] came, {n} fell ill {self} and had to stay in bed.
{He} felt weak and alone. Then the door opened, and there stood {n2} with [a pot of hot soup|warm bread and honey].
"[Now it is my turn to look after you|You have helped me so often]," said {n2}, and {he2} told {n} the most beautiful story of all.
Soon {n} was well again. "[What a good friend you are|I am so lucky to have you]," {he} said.
[And they stayed good friends all their lives|And so each of them had somebody who cared]."""),
    ("journey", "adventure,home,curiosity", "goes on a journey|wants to see the {goal}|travels to the {goal}|dreams of the {goal}",
     "It is good to see the world, and it is good to come home.",
     "curious,young,brave,little,cheerful,small,old", "apt", "land", """
{N} had heard many stories about the {goal}, and {he} wanted to see it with {his} own eyes.
One [bright|fresh|clear] morning, {he} said goodbye and set off.
[The way was long|It was a long way], over hills and through valleys.
On the second day, {he} met {intro2}. "Where are you going?" asked {n2}.
"To the {goal}," said {n}. "[I have always wanted to go there too. May I come|May I come with you|Can we go together]?" asked {n2}, and so they went on [together|side by side].
?They slept under the stars and ate what they found on the way.
Once they came to [a river without a bridge|a dark wood], and {n2} was afraid. "[Take my hand|Stay close to me]," said {n}, and so they [got across|got through].
After many days, they reached the {goal}. It was [bigger and more beautiful than any story|more wonderful than they had dreamed].
?They stood there for a long time and did not say a word.
But in the evening, {n} thought of home, of [the smell of fresh bread|{his} own bed] and of everybody {he} loved.
"[I am glad that I came|Now I have seen it]," said {n}, "and now I would like to go home."
When {he} came back, everybody wanted to hear the story, [and {n} told it again and again|and {n} told it every evening]."""),
    ("quarrel", "friendship,forgiveness", "has a quarrel with a friend|learns to say sorry|argues with a friend",
     "It is never too late to say sorry.",
     "young,proud,little,funny,cheerful,small", "apt", "any", """
{N} and {n2}, {introx2}, were best friends. They did everything together.
But one day they had a quarrel about [a~ {thing}|who was the cleverest|who should go first].
"[You are not my friend any more|I never want to see you again]!" shouted {n}. "[That is fine with me|Good]!" shouted {n2}, and they went home in different directions.
The next day, {n} [played alone|went to the {place} alone], but it was [no fun|boring]. There was nobody to laugh with.
?{He} saw a funny cloud and turned to tell {n2}, but {n2} was not there.
"[It was a silly quarrel|I should not have shouted]," thought {n}. "[I miss my friend|I will say that I am sorry]."
{He} set off to see {n2}, and halfway, near the {place}, {he} met {him2}.
Both of them spoke at the same time: "I am sorry!" Then they both laughed.
?"What was our quarrel about?" asked {n2}. "I have forgotten," said {n}, and they laughed even more.
"[A friend is worth more than being right|Let us never quarrel like that again]," said {n}.
[They sat down at the {place} and shared a big piece of cake|And they played together until the sun went down]."""),
    ("magic", "wisdom,generosity,magic", "finds a magic {magic}|has a magic {magic}|discovers magic",
     "Use what you have to help others.",
     "young,poor,kind,little,curious,clever", "ap", "land", """
One day, {n} found a~ {magic} [near the {place}|at the bottom of an old box].
When {he} touched it, it began to [glow|shine], and a soft voice said, "I am a magic {magic}. I will give you three wishes."
{N} [thought for a long time|could hardly believe it]. First {he} wished for [a big house full of sweets|a mountain of cake], and there it was!
{He} ate and ate until {his} stomach hurt. "[That was not a clever wish|Too much of a good thing is not good]," {he} said.
Then {he} wished for [a thousand toys|a chest of gold]. But there was nobody to [play with|share it with], and soon {he} was bored.
?{N} sat down and thought about what {he} really wanted.
Then {intro2} came by, and {he2} was crying. "What is wrong?" asked {n}.
"[There has been no rain for months|My family is ill], and I do not know what to do," said {n2}.
{N} had only one wish left. {He} did not think long. "I wish that [the rain comes back|your family gets well]!" {he} said.
And so it was. {N2} [laughed and cried at the same time|thanked {him} again and again].
The {magic} stopped glowing, and the magic was gone, but {n} [was happier than ever before|did not mind at all]. {He} had a friend now, and that was better than any wish."""),
    ("team", "teamwork,friendship,helping", "moves a big rock|works together with others|solves a problem together",
     "Together we can do what nobody can do alone.",
     "clever,little,young,friendly,cheerful,small,kind", "apt", "any", """
One morning, a huge rock lay on the way to the {place}, and nobody could get past.
"[I will push it away|Leave it to me]," said {n}, and {he} pushed with all {his} might. But the rock did not move.
Then {intro2} came along. "[Let me try|Step aside, I am strong]," said {n2}. {He2} pushed until {his2} face was red, but the rock did not move.
?"[It is hopeless|We will never do it]," said {n2}, and {he2} sat down.
{N} thought hard. "[You pushed, and I pushed|We each tried alone]," {he} said. "But we have not tried together!"
They called [all their friends and neighbours|everybody who lived nearby], the big ones and the small ones.
"On three," said {n}. "One, two, three!" They all pushed at the same time.
The rock [shook a little|began to move], then a little more, and then it rolled away with a great rumble!
?Everybody cheered, and the smallest of them cheered the loudest.
"[None of us could do it alone|Alone we are weak]," said {n2}, "[but together we can move mountains|but together we are strong]."
[That evening, they all had a picnic on top of the rock|And they celebrated at the {place} until the stars came out]."""),
    ("wolf", "honesty,trust", "tells lies|plays tricks on others|calls for help too often|is always joking",
     "If you often lie, nobody believes you when you tell the truth.",
     "young,funny,bored,little,lazy", "ap", "land", """
{N} was often bored, and so {he} liked to play tricks.
One day, {he} shouted, "Help! Help! [There is a fire|The river is rising]!" Everybody [dropped their work|came running] to help, but there was nothing at all.
{N} laughed and laughed. "[It was only a joke|I tricked you]!" {he} said.
?{N2}, {introx2}, was not amused. "That is not funny," {he2} said.
The next day, {n} did it again, and again everybody came. This time they were [really angry|very annoyed].
But on the third day, {n} [fell into a deep hole|slipped and hurt {his} foot] near the {place}. "Help!" {he} shouted. "Please help me!"
"[That is only another joke|We will not fall for that again]," said the others, and nobody came.
?The sun went down, and {n} was cold and afraid.
Only {n2}, {whox2}, was worried. "[I will just have a look|This time it sounds different]," {he2} said, and so {he2} found {n} [at last|in the dark].
"[Thank you for coming|You came after all]," said {n} and cried. "I will never lie again. I promise."
[And {n} kept that promise|From that day on, {n} told only the truth, and one by one the others trusted {him} again]."""),
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
BUILDS = ["bridge", "boat", "tree house", "raft", "kite", "windmill", "swing", "cart", "tower", "ladder", "hut"]
BROKENS = ["blue vase", "big mirror", "old clock", "red teapot", "glass bowl", "flower pot", "yellow cup", "window"]
GOALS = ["sea", "mountains", "big city", "end of the rainbow", "desert", "North Pole", "great waterfall",
         "highest mountain"]
MAGICS = ["lamp", "ring", "stone", "shell", "feather", "key", "mirror", "pencil", "bell", "flute", "coin"]
LOST_IN = ["forest", "dark forest", "big city", "fog", "snow", "hills", "market"]
NOISE_REASONS = ["was looking for something to eat", "only wanted to repair my roof", "could not sleep",
                 "have a terrible cold and must sneeze all the time", "was trying to build a bed",
                 "was practising a new song", "lost my key and could not get in"]
BIG_ONES = ["bear", "lion", "elephant", "giant", "dragon", "tiger", "whale", "wolf", "horse", "crocodile", "troll"]
